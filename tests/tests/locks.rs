//! Locks that clients hold: every row of n0stack's table (wire.md), through a real coordinator over mTLS.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::time::{Duration, Instant};

use hostler_common::rpc::hostler::agent::v1 as agent_rpc;
use hostler_common::rpc::hostler::agent::v1::session_request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use hostler_common::units::UnixMillis;
use hostler_coordinator::operation::record::OperationRecord;
use hostler_coordinator::operation::state::Phase;
use hostler_coordinator::store::{Store, Transaction, json};
use hostler_tests::agent::{Behaviour, Setup, SimulatedAgent};
use hostler_tests::fleet::{Fleet, collect};
use hostler_tests::wait;
use prost::Message as _;
use tonic::{Code, Status};

use HypervisorState::{AvailableToCreate, AvailableToDestroy, Unknown};
use OperationState::{Active, Completed, Failed, Scheduled};

const ME: &str = "spiffe://fleet.test/client/operator/test";
const HOUR: u32 = 3600;

fn lock(name: &str, seconds: u32) -> n0stack::ProposeOperationRequest {
    n0stack::ProposeOperationRequest {
        name: name.into(),
        lock_for_seconds: seconds,
        proposing_peer_token: "mine".into(),
        ..Default::default()
    }
}

async fn propose_as(
    fleet: &Fleet,
    role: &str,
    proposal: n0stack::ProposeOperationRequest,
    reason: &str,
) -> Result<rpc::Operation, Status> {
    let request = rpc::ProposeOperationRequest {
        proposal: Some(proposal),
        reason: reason.into(),
    };
    let response = fleet.fleet(role).propose_operation(request).await?;
    Ok(response.into_inner().operation.unwrap())
}

async fn propose(
    fleet: &Fleet,
    proposal: n0stack::ProposeOperationRequest,
    reason: &str,
) -> Result<rpc::Operation, Status> {
    propose_as(fleet, "operator", proposal, reason).await
}

async fn refused(fleet: &Fleet, proposal: n0stack::ProposeOperationRequest) -> (Code, String) {
    let status = propose(fleet, proposal, "").await.unwrap_err();
    (status.code(), status.message().to_owned())
}

async fn get(fleet: &Fleet, id: &str) -> rpc::Operation {
    let request = rpc::GetOperationRequest { id: id.into() };
    let got = fleet.fleet("viewer").get_operation(request).await.unwrap();
    got.into_inner().operation.unwrap()
}

async fn cancel(fleet: &Fleet, role: &str, id: &str, reason: &str) -> Result<rpc::Operation, Status> {
    let request = rpc::CancelOperationRequest {
        id: id.into(),
        reason: reason.into(),
    };
    let response = fleet.fleet(role).cancel_operation(request).await?;
    Ok(response.into_inner().operation.unwrap())
}

async fn why(fleet: &Fleet, id: &str) -> String {
    let request = rpc::GetHypervisorRequest { id: id.into() };
    let got = fleet.fleet("viewer").get_hypervisor(request).await.unwrap();
    got.into_inner().hypervisor.unwrap().reason
}

async fn until_ended(fleet: &Fleet, id: &str) -> rpc::Operation {
    wait::until("the lock ends", || async {
        let operation = get(fleet, id).await;
        matches!(operation.state(), Completed | Failed).then_some(operation)
    })
    .await
}

async fn with_hypervisor(behaviour: Behaviour) -> (Fleet, SimulatedAgent) {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .pool("tank")
        .that(behaviour)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    fleet.until_pool("tank").await;
    (fleet, agent)
}

fn until(operation: &rpc::Operation) -> UnixMillis {
    operation.lease.as_ref().unwrap().locked_until.unwrap().into()
}

fn lines(operation: &rpc::Operation) -> Vec<&str> {
    let logs = &operation.lease.as_ref().unwrap().logs;
    logs.iter().map(|log| log.message.as_str()).collect()
}

#[tokio::test]
async fn a_lock_on_something_free_is_an_active_operation_with_the_request_as_received() {
    let (fleet, agent) = with_hypervisor(Behaviour::Completes).await;
    let proposal = n0stack::ProposeOperationRequest {
        project: "default".into(),
        log_message: "disk 3 comes out".into(),
        ..lock("hv1", HOUR)
    };
    let before = UnixMillis::now();
    let held = propose(&fleet, proposal.clone(), "disk swap").await.unwrap();
    assert_eq!(fleet.state("hv1").await, Some(Unknown), "who has it lists it");
    assert_eq!((held.state(), held.kind.as_str()), (Active, "ProposeOperation"));
    assert_eq!((held.resource.as_str(), held.requested_by.as_str()), ("hv1", ME));
    assert_eq!(
        (held.fence, held.attempts, held.reason.as_str()),
        (1, 1, "disk swap")
    );
    let lease = held.lease.as_ref().unwrap();
    assert_eq!(lease.proposing_peer_token, "mine");
    assert!(!lease.is_disabled_cancel);
    let received = lease.operation_request.as_ref().unwrap();
    assert_eq!(
        received.type_url,
        "type.googleapis.com/n0stack.protobuf.ProposeOperationRequest"
    );
    let decoded = n0stack::ProposeOperationRequest::decode(&*received.value).unwrap();
    assert_eq!(decoded, proposal);
    let lasts = before.until(until(&held)).as_secs();
    assert!((3595..=3605).contains(&lasts), "{lasts}");
    let said = lines(&held);
    assert!(said[0].ends_with(": disk swap"), "{said:?}");
    assert_eq!(said[1], "disk 3 comes out");
    assert_eq!(
        why(&fleet, "hv1").await,
        format!("locked by {ME} until {}: disk swap", until(&held))
    );
    let on_pool = propose(&fleet, lock("tank", HOUR), "new shelf").await.unwrap();
    let pools = fleet.pools().await;
    assert_eq!(
        pools[0].reason,
        format!("locked by {ME} until {}: new shelf", until(&on_pool))
    );
    assert_eq!(pools[0].operation_ids, [on_pool.id]);
    assert!(agent.offers().is_empty(), "a lock is nothing for agents");
}

#[tokio::test]
async fn the_holder_renews_from_now_and_logs_and_forbids_a_cancel() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let first = propose(&fleet, lock("hv1", 2 * HOUR), "disk swap").await.unwrap();
    let renewal = n0stack::ProposeOperationRequest {
        log_message: "half\u{7} done".into(),
        is_disabled_cancel: true,
        ..lock("hv1", HOUR)
    };
    let renewed = propose(&fleet, renewal, "").await.unwrap();
    assert_eq!(
        (
            &renewed.id,
            renewed.fence,
            renewed.attempts,
            renewed.reason.as_str()
        ),
        (&first.id, 1, 1, "disk swap")
    );
    assert!(
        until(&renewed) < until(&first),
        "from now, not longer than asked for"
    );
    assert!(renewed.lease.as_ref().unwrap().is_disabled_cancel);
    assert_eq!(*lines(&renewed).last().unwrap(), "half done");
    let status = cancel(&fleet, "admin", &first.id, "").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let words = format!(
        "its holder does not allow it to be cancelled (it holds it until {})",
        until(&renewed)
    );
    assert!(status.message().contains(&words), "{status}");
    let again = propose(&fleet, lock("hv1", HOUR), "two disks").await.unwrap();
    assert!(!again.lease.as_ref().unwrap().is_disabled_cancel);
    assert_eq!(again.reason, "two disks");
    assert!(why(&fleet, "hv1").await.ends_with(": two disks"));
    assert_eq!(fleet.history().await.len(), 1, "one operation was renewed");
}

#[tokio::test]
async fn anybody_else_is_told_who_holds_it_why_and_until_when() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let held = propose(&fleet, lock("hv1", HOUR), "disk swap").await.unwrap();
    let sentence = format!("hv1 is locked by {ME} until {}: disk swap", until(&held));
    for seconds in [60, 0] {
        let other = n0stack::ProposeOperationRequest {
            proposing_peer_token: "another".into(),
            ..lock("hv1", seconds)
        };
        assert_eq!(
            refused(&fleet, other).await,
            (Code::FailedPrecondition, sentence.clone())
        );
        // Whoever may look can read the token.
        let status = propose_as(&fleet, "admin", lock("hv1", seconds), "")
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::FailedPrecondition, sentence.as_str())
        );
    }
    let status = propose_as(&fleet, "viewer", lock("hv1", 60), "")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(get(&fleet, &held.id).await, held, "nothing happened to it");
}

#[tokio::test]
async fn the_holder_gives_it_back_and_nobody_gives_back_what_is_free() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let free = refused(&fleet, lock("hv1", 0)).await;
    assert_eq!(free.0, Code::FailedPrecondition);
    assert!(free.1.contains("nobody holds a lock on hv1"), "{free:?}");
    let firm = n0stack::ProposeOperationRequest {
        is_disabled_cancel: true,
        ..lock("hv1", HOUR)
    };
    let held = propose(&fleet, firm, "").await.unwrap();
    let released = propose(&fleet, lock("hv1", 0), "all done").await.unwrap();
    assert_eq!(
        (&released.id, released.state(), released.message.as_str()),
        (
            &held.id,
            Completed,
            format!("released by {ME}: all done").as_str()
        )
    );
    assert!(released.ended.is_some());
    assert_eq!(fleet.state("hv1").await, Some(AvailableToCreate));
    let next = propose(&fleet, lock("hv1", 1), "").await.unwrap();
    assert_eq!(next.fence, 2, "each holder has its own fence");
}

#[tokio::test]
async fn a_proposal_that_makes_no_sense_or_names_nothing_is_refused() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let good = || lock("hv1", HOUR);
    for (wrong, code, words) in [
        (
            n0stack::ProposeOperationRequest {
                name: String::new(),
                ..good()
            },
            Code::InvalidArgument,
            "name is empty",
        ),
        (
            n0stack::ProposeOperationRequest {
                proposing_peer_token: String::new(),
                ..good()
            },
            Code::InvalidArgument,
            "token is empty",
        ),
        (
            n0stack::ProposeOperationRequest {
                project: "other".into(),
                ..good()
            },
            Code::InvalidArgument,
            "the project is \"other\"",
        ),
        (lock("hv1", 7 * 24 * HOUR + 1), Code::InvalidArgument, "(7 days)"),
        (
            n0stack::ProposeOperationRequest {
                log_message: "x".repeat(40_000),
                ..good()
            },
            Code::InvalidArgument,
            "at most 32768",
        ),
        (
            lock("hv9", HOUR),
            Code::NotFound,
            "no hypervisor or storage pool is called hv9",
        ),
    ] {
        let said = refused(&fleet, wrong).await;
        assert!(said.0 == code && said.1.contains(words), "{said:?}");
    }
    let request = rpc::ProposeOperationRequest::default();
    let status = fleet
        .fleet("operator")
        .propose_operation(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(fleet.history().await.is_empty());
    assert!(propose(&fleet, lock("hv1", 7 * 24 * HOUR), "").await.is_ok());
}

#[tokio::test]
async fn what_runs_or_waits_is_in_the_way_and_its_token_is_not_enough() {
    let (fleet, agent) = with_hypervisor(Behaviour::Ignores).await;
    let (_, stream) = fleet.creating("hv1").await;
    let waits = refused(&fleet, lock("hv1", HOUR)).await;
    assert_eq!(waits.0, Code::FailedPrecondition);
    let id = fleet.history().await[0].id.clone();
    assert!(
        waits.1.starts_with(&format!(
            "hv1 is busy with operation {id} (create), asked for by {ME}: it has not ended"
        )),
        "{waits:?}"
    );
    agent.behave(Behaviour::Renews);
    agent.until_holds(1).await;
    for seconds in [HOUR, 0] {
        let with_its_token = n0stack::ProposeOperationRequest {
            proposing_peer_token: agent.token.clone(),
            ..lock("hv1", seconds)
        };
        let runs = refused(&fleet, with_its_token).await;
        assert_eq!(runs.0, Code::FailedPrecondition);
        assert!(runs.1.contains("the agent of h1 holds it until 20"), "{runs:?}");
    }
    agent.behave(Behaviour::Completes);
    assert_eq!(collect(stream).await.unwrap().last().unwrap().0, Completed);
    assert_eq!(fleet.history().await.len(), 1, "nothing was queued");
}

#[tokio::test]
async fn what_needs_attention_cannot_be_locked() {
    let (fleet, _agent) = with_hypervisor(Behaviour::NeedsAttention).await;
    fleet.create("hv1").await.unwrap();
    let said = refused(&fleet, lock("hv1", HOUR)).await;
    assert_eq!(said.0, Code::FailedPrecondition);
    assert!(
        said.1.contains("hv1 needs attention since operation "),
        "{said:?}"
    );
}

#[tokio::test]
async fn operations_wait_behind_a_lock_and_go_on_when_it_ends() {
    let (fleet, agent) = with_hypervisor(Behaviour::Completes).await;
    for end in ["released", "unlocked"] {
        let offers = agent.offers().len();
        let held = propose(&fleet, lock("hv1", HOUR), "disk swap").await.unwrap();
        let ((state, first), stream) = match end {
            "released" => {
                let (said, stream) = fleet.creating("hv1").await;
                (said, tokio::spawn(async move { collect(stream).await }))
            }
            _ => {
                let (said, stream) = fleet.destroying("hv1").await;
                (said, tokio::spawn(async move { collect(stream).await }))
            }
        };
        let words = format!("waits for the lock of {ME} until {}: disk swap", until(&held));
        assert!(state == Scheduled && first.ends_with(&words), "{first}");
        assert_eq!(fleet.state("hv1").await, Some(Unknown));
        assert!(why(&fleet, "hv1").await.starts_with("locked by "));
        assert_eq!(agent.offers().len(), offers, "offered before its turn");
        match end {
            "released" => drop(propose(&fleet, lock("hv1", 0), "").await.unwrap()),
            _ => {
                let ended = cancel(&fleet, "admin", &held.id, "swap is off").await.unwrap();
                let by = "spiffe://fleet.test/client/admin/test";
                assert_eq!(
                    (ended.state(), ended.message),
                    (Failed, format!("unlocked by {by}: swap is off"))
                );
            }
        }
        let said = stream.await.unwrap().unwrap();
        assert_eq!(said.last().unwrap().0, Completed, "{said:?}");
    }
    assert_eq!(fleet.state("hv1").await, Some(AvailableToCreate));
}

#[tokio::test]
async fn a_lock_ends_at_its_time_and_the_queue_goes_on() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let begun = Instant::now();
    let held = propose(&fleet, lock("hv1", 2), "short").await.unwrap();
    let said = fleet.create("hv1").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "freed early");
    assert_eq!(said.last().unwrap().0, Completed);
    let ended = get(&fleet, &held.id).await;
    assert_eq!(
        (ended.state(), ended.message.as_str()),
        (Completed, "the lock ended at its time")
    );
}

#[tokio::test]
async fn a_holder_that_forbids_a_cancel_and_is_not_heard_of_again_is_dead() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let firm = n0stack::ProposeOperationRequest {
        is_disabled_cancel: true,
        ..lock("hv1", 1)
    };
    let held = propose(&fleet, firm, "").await.unwrap();
    let ended = until_ended(&fleet, &held.id).await;
    assert_eq!(ended.state(), Failed);
    assert!(
        ended
            .message
            .starts_with(&format!("operator dead: {ME} has neither renewed")),
        "{}",
        ended.message
    );
    fleet.until_state("hv1", AvailableToCreate).await;
}

#[tokio::test]
async fn a_lock_survives_restarts_and_never_lasts_twice_its_time() {
    let (mut fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let held = propose(&fleet, lock("hv1", 4), "disk swap").await.unwrap();
    let begun = Instant::now();
    let mut restarts = 0;
    // With its whole time given again at each restart it would never end.
    while get(&fleet, &held.id).await.state() == Active {
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "after {restarts} restarts"
        );
        let ran = || async {
            let ended = get(&fleet, &held.id).await.state() != Active;
            (ended || begun.elapsed() >= Duration::from_millis(1400 * (restarts + 1))).then_some(())
        };
        wait::until("it has run for a while", ran).await;
        fleet.restart().await;
        restarts += 1;
        if begun.elapsed() < Duration::from_secs(4) {
            assert_eq!(get(&fleet, &held.id).await.state(), Active, "freed early");
            assert!(why(&fleet, "hv1").await.ends_with(": disk swap"));
        }
    }
    assert!(restarts >= 3, "{restarts}");
    assert_eq!(get(&fleet, &held.id).await.message, "the lock ended at its time");
}

/// Writes another wall-clock end into the record of a lock, as a clock that was wrong would have.
async fn set_until(fleet: &Fleet, id: &str, until: UnixMillis) {
    let store = wait::until("the store is free", || async {
        Store::open(&fleet.data_dir()).ok()
    })
    .await;
    let key = OperationRecord::key(id.parse().unwrap());
    let entry = store.get(&key).await.unwrap().unwrap();
    let mut record: OperationRecord = json::read(&entry).unwrap();
    match &mut record.life.phase {
        Phase::Active(lease) => lease.locked_until = until,
        other => panic!("{other:?}"),
    }
    let transaction = Transaction {
        compares: Vec::new(),
        writes: vec![json::put(key, &record)],
    };
    store.commit(transaction).await.unwrap();
}

#[tokio::test]
async fn a_step_of_the_wall_clock_frees_nothing_early_and_holds_nothing_for_long() {
    let (mut fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let hour = Duration::from_secs(HOUR.into());
    let begun = Instant::now();
    let past = propose(&fleet, lock("hv1", 3), "").await.unwrap();
    let future = propose(&fleet, lock("tank", 3), "").await.unwrap();
    fleet.stop().await;
    let now = UnixMillis::now();
    set_until(&fleet, &past.id, UnixMillis(now.0 - 3_600_000)).await;
    set_until(&fleet, &future.id, now.plus(hour)).await;
    fleet.restart().await;
    for id in [&past.id, &future.id] {
        let ended = until_ended(&fleet, id).await;
        assert_eq!(ended.message, "the lock ended at its time");
        assert!(begun.elapsed() >= Duration::from_secs(3), "freed early");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "held for long");
}

#[tokio::test]
async fn a_lock_is_renewed_after_a_restart_and_what_waits_is_still_there() {
    let (mut fleet, agent) = with_hypervisor(Behaviour::Completes).await;
    let held = propose(&fleet, lock("hv1", HOUR), "disk swap").await.unwrap();
    let (_, cut) = fleet.creating("hv1").await;
    fleet.restart().await;
    assert_eq!(collect(cut).await.unwrap_err().code(), Code::Unavailable);
    drop(agent);
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    let renewed = propose(&fleet, lock("hv1", HOUR), "").await.unwrap();
    assert_eq!((renewed.id, renewed.fence), (held.id, 1));
    propose(&fleet, lock("hv1", 0), "").await.unwrap();
    fleet.until_state("hv1", AvailableToDestroy).await;
    assert_eq!(fleet.history().await.len(), 2);
}

#[tokio::test]
async fn the_agent_of_a_locked_host_cannot_touch_the_lock_even_with_its_token() {
    let fleet = Fleet::start().await;
    let mut setup = Setup::of("h1", &["hv1"]);
    setup.token = "mine".into();
    let agent = setup.start(&fleet).await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let held = propose(&fleet, lock("hv1", HOUR), "").await.unwrap();
    let propose = agent_rpc::Propose {
        request_id: 7,
        operation_id: held.id.clone(),
        proposal: Some(lock("hv1", 60)),
        fence: 0,
        newest_fence: 0,
    };
    agent.send(session_request::Message::Propose(propose)).await;
    let answer = agent
        .until("the answer", |m| match m {
            Message::ProposeAnswer(answer) if answer.request_id == 7 => Some(answer.clone()),
            _ => None,
        })
        .await;
    assert!(
        !answer.accepted && answer.reason.contains("is a lock that spiffe://"),
        "{answer:?}"
    );
    let finish = agent_rpc::Finish {
        operation_id: held.id.clone(),
        fence: 1,
        outcome: agent_rpc::Outcome::Done.into(),
        message: "mine".into(),
        process_token: "mine".into(),
    };
    agent.send(session_request::Message::Finish(finish)).await;
    let answer = agent
        .until("the answer", |m| match m {
            Message::FinishAnswer(answer) => Some(answer.clone()),
            _ => None,
        })
        .await;
    assert!(!answer.accepted, "{answer:?}");
    assert_eq!(get(&fleet, &held.id).await, held);
}

#[tokio::test]
async fn a_watch_of_a_lock_and_of_its_hypervisor_follows_it_to_the_end() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let held = propose(&fleet, lock("hv1", HOUR), "disk swap").await.unwrap();
    let request = rpc::WatchOperationRequest { id: held.id.clone() };
    let stream = fleet.fleet("viewer").watch_operation(request).await.unwrap();
    let mut seen = fleet
        .fleet("viewer")
        .watch_hypervisors(rpc::WatchHypervisorsRequest {})
        .await
        .unwrap()
        .into_inner();
    propose(&fleet, lock("hv1", 2 * HOUR), "two disks").await.unwrap();
    loop {
        use rpc::watch_hypervisors_response::Event;
        let event = seen.message().await.unwrap().unwrap().event.unwrap();
        if matches!(event, Event::Hypervisor(it) if it.reason.ends_with(": two disks")) {
            break;
        }
    }
    propose(&fleet, lock("hv1", 0), "").await.unwrap();
    let said = collect(stream.into_inner()).await.unwrap();
    let states: Vec<_> = said.iter().map(|(state, _)| *state).collect();
    assert_eq!(states, [Active, Active, Completed], "{said:?}");
}

#[tokio::test]
async fn of_many_that_want_it_at_once_one_has_it() {
    let (fleet, _agent) = with_hypervisor(Behaviour::Completes).await;
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let mut operator = fleet.fleet("operator");
            let proposal = n0stack::ProposeOperationRequest {
                proposing_peer_token: format!("token-{number}"),
                ..lock("hv1", HOUR)
            };
            let request = rpc::ProposeOperationRequest {
                proposal: Some(proposal),
                reason: String::new(),
            };
            tokio::spawn(async move { operator.propose_operation(request).await })
        })
        .collect();
    let mut held = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => held += 1,
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status}"),
        }
    }
    assert_eq!((held, fleet.history().await.len()), (1, 1));
}
