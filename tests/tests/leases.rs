//! n0stack's lease as agents use it: each row of its table (wire.md), through a real coordinator over mTLS. Locks of
//! clients are in `locks.rs`; who is a former holder, in `sessions.rs`.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::session_request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::fleet::v1 as fleet_rpc;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::{CreateHypervisorRequest, HypervisorState, OperationState};
use hostler_common::units::UnixMillis;
use hostler_tests::agent::{Behaviour, Setup, SimulatedAgent};
use hostler_tests::fleet::{Fleet, collect};
use hostler_tests::wait;
use prost::Message as _;
use tonic::Code;

/// Proposals are told apart by it.
static NUMBER: AtomicU64 = AtomicU64::new(1000);

/// An agent that says only what the test says, and an operation that it is offered.
async fn offered() -> (Fleet, SimulatedAgent, String) {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Ignores)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    drop(fleet.creating("hv1").await);
    let id = fleet.history().await.remove(0).id;
    (fleet, agent, id)
}

fn lock(agent: &SimulatedAgent, seconds: u32) -> n0stack::ProposeOperationRequest {
    n0stack::ProposeOperationRequest {
        name: "hv1".into(),
        project: "default".into(),
        lock_for_seconds: seconds,
        proposing_peer_token: agent.token.clone(),
        ..Default::default()
    }
}

async fn propose(
    agent: &SimulatedAgent,
    id: &str,
    proposal: n0stack::ProposeOperationRequest,
) -> rpc::ProposeAnswer {
    let request_id = NUMBER.fetch_add(1, Ordering::Relaxed);
    let propose = rpc::Propose {
        request_id,
        operation_id: id.into(),
        proposal: Some(proposal),
        fence: 0,
        newest_fence: 0,
    };
    agent.send(session_request::Message::Propose(propose)).await;
    agent
        .until("the answer", |m| match m {
            Message::ProposeAnswer(answer) if answer.request_id == request_id => Some(answer.clone()),
            _ => None,
        })
        .await
}

async fn get(fleet: &Fleet, id: &str) -> fleet_rpc::Operation {
    let request = fleet_rpc::GetOperationRequest { id: id.into() };
    let got = fleet.fleet("viewer").get_operation(request).await.unwrap();
    got.into_inner().operation.unwrap()
}

fn lease(operation: &fleet_rpc::Operation) -> &n0stack::Operation {
    operation.lease.as_ref().unwrap()
}

fn until(operation: &fleet_rpc::Operation) -> UnixMillis {
    lease(operation).locked_until.unwrap().into()
}

async fn until_scheduled_again(fleet: &Fleet, id: &str) -> fleet_rpc::Operation {
    wait::until("the lease expires", || async {
        let operation = get(fleet, id).await;
        (operation.attempts > 0 && operation.state() == OperationState::Scheduled).then_some(operation)
    })
    .await
}

#[tokio::test]
async fn the_request_that_set_it_in_motion_is_kept_as_it_was_received() {
    let (fleet, _agent, id) = offered().await;
    let operation = get(&fleet, &id).await;
    let request = lease(&operation).operation_request.as_ref().unwrap();
    assert_eq!(
        request.type_url,
        "type.googleapis.com/operations.v1.CreateHypervisorRequest"
    );
    let received = CreateHypervisorRequest::decode(&*request.value).unwrap();
    assert_eq!(received.id, "hv1");
}

#[tokio::test]
async fn the_holder_renews_from_now_and_what_it_logs_is_appended() {
    let (fleet, agent, id) = offered().await;
    assert!(propose(&agent, &id, lock(&agent, 20)).await.accepted);
    let first = get(&fleet, &id).await;
    assert_eq!(lease(&first).proposing_peer_token, agent.token);
    let renewal = n0stack::ProposeOperationRequest {
        log_message: "half done".into(),
        is_disabled_cancel: true,
        ..lock(&agent, 10)
    };
    let answer = propose(&agent, &id, renewal).await;
    assert_eq!((answer.accepted, answer.fence), (true, first.fence));
    let renewed = get(&fleet, &id).await;
    assert!(
        until(&renewed) < until(&first),
        "from now, not after what was left"
    );
    assert!(lease(&renewed).is_disabled_cancel);
    let logs: Vec<_> = lease(&renewed)
        .logs
        .iter()
        .map(|log| log.message.as_str())
        .collect();
    assert_eq!((logs.len(), logs[1]), (2, "half done"));
    let silent = propose(&agent, &id, lock(&agent, 10)).await;
    assert!(silent.accepted);
    assert_eq!(lease(&get(&fleet, &id).await).logs.len(), 2, "nothing was said");
}

#[tokio::test]
async fn a_proposal_with_another_token_or_for_another_resource_is_refused() {
    let (fleet, agent, id) = offered().await;
    let foreign = n0stack::ProposeOperationRequest {
        proposing_peer_token: "another".into(),
        ..lock(&agent, 10)
    };
    let elsewhere = n0stack::ProposeOperationRequest {
        name: "hv2".into(),
        ..lock(&agent, 10)
    };
    for (proposal, words) in [
        (foreign, "not that of this session's process"),
        (elsewhere, "is not on hv2"),
    ] {
        let answer = propose(&agent, &id, proposal).await;
        assert!(!answer.accepted && answer.reason.contains(words), "{answer:?}");
    }
    assert_eq!(get(&fleet, &id).await.state(), OperationState::Scheduled);
}

#[tokio::test]
async fn while_it_is_locked_another_process_is_told_until_when() {
    let (fleet, agent, id) = offered().await;
    assert!(propose(&agent, &id, lock(&agent, 20)).await.accepted);
    let held = get(&fleet, &id).await;
    agent.kill();
    let next = Setup::of("h1", &["hv1"])
        .that(Behaviour::Ignores)
        .start(&fleet)
        .await;
    next.until("the welcome", |m| matches!(m, Message::Welcome(_)).then_some(()))
        .await;
    let answer = propose(&next, &id, lock(&next, 10)).await;
    let words = format!("held by another operator until {}", until(&held));
    assert!(!answer.accepted && answer.reason.contains(&words), "{answer:?}");
    assert_eq!(get(&fleet, &id).await, held, "nothing happened to it");
}

#[tokio::test]
async fn a_cancel_is_refused_while_its_agent_forbids_it_and_taken_once_it_does_not() {
    let (fleet, agent, id) = offered().await;
    let firm = n0stack::ProposeOperationRequest {
        is_disabled_cancel: true,
        ..lock(&agent, 20)
    };
    assert!(propose(&agent, &id, firm).await.accepted);
    let cancel = || {
        let mut operator = fleet.fleet("operator");
        let request = fleet_rpc::CancelOperationRequest {
            id: id.clone(),
            reason: String::new(),
        };
        async move { operator.cancel_operation(request).await }
    };
    let status = cancel().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let held = until(&get(&fleet, &id).await);
    let words = format!("its agent does not allow it to be cancelled (it holds it until {held})");
    assert!(status.message().contains(&words), "{status}");
    assert!(propose(&agent, &id, lock(&agent, 20)).await.accepted);
    cancel().await.unwrap();
    agent
        .until("the cancel", |m| matches!(m, Message::Cancel(_)).then_some(()))
        .await;
}

#[tokio::test]
async fn an_agent_that_forbade_a_cancel_and_did_not_renew_is_shown_as_dead() {
    let (fleet, agent, id) = offered().await;
    for (is_disabled_cancel, dead) in [(false, false), (true, true)] {
        let proposal = n0stack::ProposeOperationRequest {
            is_disabled_cancel,
            ..lock(&agent, 1)
        };
        assert!(propose(&agent, &id, proposal).await.accepted);
        let expired = until_scheduled_again(&fleet, &id).await;
        assert_eq!(
            expired.message.starts_with("operator dead: "),
            dead,
            "{}",
            expired.message
        );
        assert!(
            expired
                .message
                .contains("the agent of h1 has not renewed its lease of 1 s"),
            "{}",
            expired.message
        );
        let free = lease(&expired);
        assert!(
            free.locked_until.is_none() && !free.is_disabled_cancel,
            "{free:?}"
        );
    }
}

#[tokio::test]
async fn after_a_failure_the_operator_proposes_its_back_off_as_the_lock() {
    let (fleet, agent, id) = offered().await;
    let back_off = n0stack::ProposeOperationRequest {
        log_message: "the disk is busy; again in 4 s".into(),
        ..lock(&agent, 4)
    };
    let begun = Instant::now();
    assert!(propose(&agent, &id, back_off).await.accepted);
    until_scheduled_again(&fleet, &id).await;
    assert!(
        begun.elapsed() >= Duration::from_secs(4),
        "twice the lease, and kept: {:?}",
        begun.elapsed()
    );
    // Nobody keeps others away for longer than ten leases.
    let before = UnixMillis::now();
    assert!(propose(&agent, &id, lock(&agent, u32::MAX)).await.accepted);
    let lasts = before.until(until(&get(&fleet, &id).await));
    assert!(lasts <= Duration::from_secs(21), "{lasts:?}");
}

#[tokio::test]
async fn an_operation_that_is_renewed_outlives_many_leases() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Renews)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let (_, stream) = fleet.creating("hv1").await;
    agent.until_holds(1).await;
    let begun = Instant::now();
    wait::until("two leases pass", || async {
        (begun.elapsed() > Duration::from_secs(5)).then_some(())
    })
    .await;
    let id = fleet.history().await.remove(0).id;
    assert_eq!(get(&fleet, &id).await.attempts, 1);
    agent.behave(Behaviour::Completes);
    let said = collect(stream).await.unwrap();
    assert_eq!(said.last().unwrap().0, OperationState::Completed);
}
