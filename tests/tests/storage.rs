//! Storage pools and backups through a real coordinator over mTLS, with simulated agents.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::rpc::hostler::agent::v1 as agent_rpc;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as FromCoordinator;
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::operations::v1 as operations;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use hostler_tests::agent::{Behaviour, SIZE, SPARE, Setup, SimulatedAgent};
use hostler_tests::fleet::{Fleet, Message, Said, begun, collect};
use hostler_tests::wait;
use tonic::{Code, Response, Status, Streaming};

use OperationState::{Active, Completed, Failed, Scheduled};

const GIB: u64 = 1 << 30;

type Call<M> = Result<Response<Streaming<M>>, Status>;

/// The whole stream, which keeps the rules: words in each message, the end once and last.
async fn told<M: Message>(call: Call<M>) -> Vec<Said> {
    let said = collect(call.unwrap().into_inner()).await.unwrap();
    let (last, before) = said.split_last().unwrap();
    assert!(said.iter().all(|(_, msg)| !msg.is_empty()), "{said:?}");
    assert!(matches!(last.0, Completed | Failed), "{said:?}");
    let unended = |(state, _): &Said| matches!(state, Scheduled | Active);
    assert!(before.iter().all(unended), "{said:?}");
    said
}

fn refused<M>(call: Call<M>) -> Status {
    match call {
        Ok(_) => panic!("it was taken"),
        Err(status) => status,
    }
}

async fn expand(fleet: &Fleet, pool: &str, min_bytes: u64) -> Call<rpc::ExpandStorageResponse> {
    let request = rpc::ExpandStorageRequest {
        pool: pool.to_owned(),
        min_bytes,
        dry_run: false,
    };
    fleet.fleet("operator").expand_storage(request).await
}

async fn shrink(fleet: &Fleet, pool: &str, max_bytes: u64) -> Call<rpc::ShrinkStorageResponse> {
    let request = rpc::ShrinkStorageRequest {
        pool: pool.to_owned(),
        max_bytes,
        dry_run: false,
    };
    fleet.fleet("operator").shrink_storage(request).await
}

async fn cancel(fleet: &Fleet, id: &str, reason: &str) -> Result<rpc::Operation, Status> {
    let request = rpc::CancelOperationRequest {
        id: id.to_owned(),
        reason: reason.to_owned(),
    };
    let response = fleet.fleet("operator").cancel_operation(request).await?;
    Ok(response.into_inner().operation.unwrap())
}

async fn with_pool(behaviour: Behaviour) -> (Fleet, SimulatedAgent) {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &[])
        .pool("tank")
        .that(behaviour)
        .start(&fleet)
        .await;
    fleet.until_pool("tank").await;
    (fleet, agent)
}

fn size(pools: &[rpc::StoragePool]) -> u64 {
    pools[0].report.as_ref().unwrap().size_bytes
}

fn ended(said: &[Said]) -> (OperationState, &str) {
    let (state, msg) = said.last().unwrap();
    (*state, msg)
}

#[tokio::test]
async fn a_pool_is_expanded_and_shrunk_by_both_apis_and_the_list_follows() {
    let (fleet, _agent) = with_pool(Behaviour::Completes).await;
    let pools = fleet.pools().await;
    assert_eq!(
        (pools.len(), pools[0].host.as_str(), size(&pools)),
        (1, "h1", SIZE)
    );
    assert!(pools[0].is_default && pools[0].connected);
    let said = told(expand(&fleet, "tank", GIB).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert_eq!(
        size(&fleet.pools().await),
        SIZE + GIB,
        "who hears the end sees it listed"
    );
    assert_eq!(said[0].0, Scheduled);
    assert!(
        said[0].1.contains("expand tank by at least 1.00 GiB on host h1"),
        "{said:?}"
    );
    let mut operator = fleet.operations("operator");
    let request = operations::ShrinkStorageRequest {
        max_bytes: 1_000_000_000,
    };
    let said = told(operator.shrink_storage(request).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert!(
        said[0].1.contains("shrink tank by at most 953.67 MiB"),
        "{said:?}"
    );
    assert_eq!(size(&fleet.pools().await), SIZE + GIB - 1_000_000_000);
    let said = told(operator.create_backup(operations::CreateBackupRequest {}).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert!(said[0].1.contains("back up tank on host h1"), "{said:?}");
    let backups = fleet
        .fleet("viewer")
        .list_backups(rpc::ListBackupsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let history = fleet.history().await;
    assert_eq!((backups.pool.as_str(), backups.backups.len()), ("tank", 1));
    assert_eq!(backups.backups[0].operation_id, history[0].id);
    let kinds: Vec<_> = history.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["CreateBackup", "ShrinkStorage", "ExpandStorage"]);
    let of_pool = rpc::ListOperationsRequest {
        resource: "tank".into(),
        ..Default::default()
    };
    let page = fleet.fleet("viewer").list_operations(of_pool).await.unwrap();
    assert_eq!(page.into_inner().operations.len(), 3);
}

#[tokio::test]
async fn every_message_of_the_fleet_api_names_its_operation() {
    let (fleet, _agent) = with_pool(Behaviour::Completes).await;
    let mut stream = expand(&fleet, "", 1).await.unwrap().into_inner();
    let mut messages = 0;
    let id = fleet.history().await[0].id.clone();
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!(message.operation_id, id);
        messages += 1;
    }
    assert!(messages >= 2, "{messages}");
    let unknown = expand(&fleet, "nowhere", 1)
        .await
        .unwrap()
        .into_inner()
        .message()
        .await;
    assert_eq!(unknown.unwrap().unwrap().operation_id, "", "there is none");
}

#[tokio::test]
async fn amounts_that_make_no_sense_are_refused_by_their_field() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    for bytes in [0, -1, i32::MIN] {
        let request = operations::ExpandStorageRequest { min_bytes: bytes };
        let status = refused(fleet.operations("operator").expand_storage(request).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains(&format!("min_bytes is {bytes}")),
            "{status}"
        );
        let request = operations::ShrinkStorageRequest { max_bytes: bytes };
        let status = refused(fleet.operations("operator").shrink_storage(request).await);
        assert!(status.message().contains("max_bytes"), "{status}");
    }
    let status = refused(expand(&fleet, "tank", 0).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    for pool in ["../tank", "-x", "a b"] {
        let status = refused(expand(&fleet, pool, 1).await);
        assert_eq!(status.code(), Code::InvalidArgument, "{pool}");
    }
    assert!(fleet.history().await.is_empty());
    // What is too much is for the owner to say.
    agent.behave(Behaviour::Fails("tank can grow by 50.00 GiB".into()));
    for said in [
        told(expand(&fleet, "tank", u64::MAX).await).await,
        told(expand(&fleet, "tank", SPARE + 1).await).await,
        told(shrink(&fleet, "tank", u64::MAX).await).await,
        told(
            fleet
                .operations("operator")
                .expand_storage(operations::ExpandStorageRequest { min_bytes: i32::MAX })
                .await,
        )
        .await,
    ] {
        assert_eq!(ended(&said), (Failed, "tank can grow by 50.00 GiB"));
    }
    let offered = agent.offers();
    let request = hostler_common::operation::Request::of(offered[0].request.as_ref().unwrap()).unwrap();
    let most = hostler_common::bytes::Bytes(u64::MAX);
    assert_eq!(
        request,
        hostler_common::operation::Request::ExpandStorage { min: most }
    );
}

#[tokio::test]
async fn a_pool_that_is_not_there_is_a_streamed_failure_with_a_way_out() {
    let fleet = Fleet::start().await;
    let said = told(expand(&fleet, "", 1).await).await;
    assert!(
        ended(&said).1.starts_with("no storage pool is configured"),
        "{said:?}"
    );
    let _one = Setup::of("h1", &[]).pool("a").start(&fleet).await;
    let _two = Setup::of("h2", &[]).pool("b").start(&fleet).await;
    fleet.until_pool("a").await;
    fleet.until_pool("b").await;
    let said = told(expand(&fleet, "nowhere", 1).await).await;
    assert!(
        ended(&said).1.contains("no storage pool nowhere") && ended(&said).1.contains("hostler storage list"),
        "{said:?}"
    );
    let said = told(
        fleet
            .operations("operator")
            .create_backup(operations::CreateBackupRequest {})
            .await,
    )
    .await;
    assert_eq!(ended(&said).0, Failed);
    assert!(ended(&said).1.contains("(a, b)"), "{said:?}");
    assert!(fleet.history().await.is_empty(), "nothing was begun");
    let said = told(expand(&fleet, "b", 1).await).await;
    assert_eq!(ended(&said).0, Completed);
    for (pool, word) in [("", "several"), ("nowhere", "nowhere")] {
        let request = rpc::ListBackupsRequest { pool: pool.into() };
        let status = fleet.fleet("viewer").list_backups(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains(word), "{status}");
    }
}

#[tokio::test]
async fn the_configured_pool_is_meant_among_several() {
    let fleet = Fleet::start_with(|config| config.default_pool = Some("b".parse().unwrap())).await;
    let _one = Setup::of("h1", &[]).pool("a").start(&fleet).await;
    let two = Setup::of("h2", &[]).pool("b").start(&fleet).await;
    fleet.until_pool("a").await;
    fleet.until_pool("b").await;
    let request = operations::ExpandStorageRequest { min_bytes: 7 };
    let said = told(fleet.operations("operator").expand_storage(request).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert_eq!(two.offers()[0].resource, "b");
}

#[tokio::test]
async fn the_same_request_attaches_and_another_waits_for_its_turn() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, first) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    // By the other API, and without the pool's name: it asks for the same.
    let request = operations::ExpandStorageRequest { min_bytes: 1 << 30 };
    let (same, attached) = begun(fleet.operations("operator").expand_storage(request).await).await;
    assert!(
        same.1.starts_with("attached to operation ") && same.1.contains("is under way"),
        "{same:?}"
    );
    let (other, second) = begun(expand(&fleet, "tank", 2 * GIB).await).await;
    assert!(
        other.0 == Scheduled && other.1.contains("waits for operation"),
        "{other:?}"
    );
    let (third, backup) = begun(
        fleet
            .fleet("operator")
            .create_backup(rpc::CreateBackupRequest::default())
            .await,
    )
    .await;
    assert!(third.1.contains("waits for operation"), "{third:?}");
    assert_eq!(fleet.history().await.len(), 3, "one operation serves two calls");
    let listed = fleet.pools().await;
    assert_eq!(listed[0].operation_ids.len(), 3);
    assert!(!listed[0].reason.is_empty(), "it is busy");
    agent.behave(Behaviour::Completes);
    assert_eq!(ended(&collect(first).await.unwrap()).0, Completed);
    assert_eq!(ended(&collect(attached).await.unwrap()).0, Completed);
    assert_eq!(ended(&collect(second).await.unwrap()).0, Completed);
    assert_eq!(ended(&collect(backup).await.unwrap()).0, Completed);
    assert_eq!(size(&fleet.pools().await), SIZE + 3 * GIB, "each was done once");
    let again = told(expand(&fleet, "tank", GIB).await).await;
    assert_eq!(ended(&again).0, Completed);
    assert_eq!(
        size(&fleet.pools().await),
        SIZE + 4 * GIB,
        "what has ended is no longer attached to"
    );
}

#[tokio::test]
async fn hypervisors_go_on_while_a_pool_is_busy() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let _other = Setup::of("h2", &["hv2"]).start(&fleet).await;
    let (_, stream) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    fleet.until_state("hv2", HypervisorState::AvailableToCreate).await;
    assert_eq!(ended(&fleet.create("hv2").await.unwrap()).0, Completed);
    agent.behave(Behaviour::Completes);
    assert_eq!(ended(&collect(stream).await.unwrap()).0, Completed);
}

#[tokio::test]
async fn a_dry_run_says_line_by_line_what_would_be_and_makes_no_operation() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, _running) = begun(expand(&fleet, "tank", GIB).await).await;
    let request = rpc::ShrinkStorageRequest {
        max_bytes: GIB,
        dry_run: true,
        ..Default::default()
    };
    let said = told(fleet.fleet("operator").shrink_storage(request.clone()).await).await;
    let expected = [
        (Active, "look at the devices".to_owned()),
        (Active, "use them".to_owned()),
        (Completed, "would shrink tank".to_owned()),
    ];
    assert_eq!(said, expected, "it waits for nobody");
    let delete = rpc::DeleteBackupRequest {
        id: "abcd".into(),
        dry_run: true,
        ..Default::default()
    };
    let said = told(fleet.fleet("admin").delete_backup(delete).await).await;
    assert_eq!(ended(&said), (Completed, "would delete a backup of tank"));
    agent.refuse("tank can give nothing: 90.00 GiB of 100.00 GiB are used");
    let said = told(fleet.fleet("operator").shrink_storage(request.clone()).await).await;
    assert_eq!(said.len(), 1);
    assert_eq!(
        ended(&said),
        (Failed, "tank can give nothing: 90.00 GiB of 100.00 GiB are used")
    );
    let nothing = rpc::ShrinkStorageRequest {
        max_bytes: 0,
        ..request.clone()
    };
    let status = refused(fleet.fleet("operator").shrink_storage(nothing).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(fleet.history().await.len(), 1, "only the expand");
    agent.kill();
    wait::until("the owner is gone", || async {
        (!fleet.pools().await[0].connected).then_some(())
    })
    .await;
    let said = told(fleet.fleet("operator").shrink_storage(request).await).await;
    assert!(
        ended(&said).0 == Failed && ended(&said).1.contains("h1 is not connected"),
        "{said:?}"
    );
}

#[tokio::test]
async fn backups_are_listed_by_the_owner_or_it_is_said_why_not() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    let list = || async {
        let request = rpc::ListBackupsRequest { pool: "tank".into() };
        fleet.fleet("viewer").list_backups(request).await
    };
    let backup = |id: &str| agent_rpc::Backup {
        id: id.into(),
        bytes: GIB,
        ..Default::default()
    };
    agent.keep_backups(vec![backup("aaaa"), backup("bbbb")]);
    let listed = list().await.unwrap().into_inner();
    let ids: Vec<_> = listed.backups.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["aaaa", "bbbb"], "oldest first, as the owner says");
    agent.refuse("the repository /srv/backup is not there: mount it");
    let status = list().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "the repository /srv/backup is not there: mount it"
    );
    agent.kill();
    wait::until("the owner is gone", || async {
        (!fleet.pools().await[0].connected).then_some(())
    })
    .await;
    let status = list().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("h1"), "{status}");
}

#[tokio::test]
async fn the_verbs_of_backups_reach_the_owner_whole() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    let verify = rpc::VerifyBackupRequest {
        id: "latest".into(),
        read_percent: 10,
        ..Default::default()
    };
    let said = told(fleet.fleet("operator").verify_backup(verify).await).await;
    assert!(
        said[0]
            .1
            .contains("verify backup latest of tank, reading 10 % of the data back on host h1"),
        "{said:?}"
    );
    let restore = rpc::RestoreBackupRequest {
        id: "abcd".into(),
        target: "/srv/back".into(),
        paths: vec!["desktops/a".into(), "b".into()],
        ..Default::default()
    };
    let said = told(fleet.fleet("operator").restore_backup(restore).await).await;
    assert!(
        said[0]
            .1
            .contains("restore desktops/a and 1 other path of tank from backup abcd into /srv/back"),
        "{said:?}"
    );
    let delete = rpc::DeleteBackupRequest {
        id: "abcd".into(),
        ..Default::default()
    };
    let said = told(fleet.fleet("admin").delete_backup(delete.clone()).await).await;
    assert!(said[0].1.contains("delete backup abcd of tank"), "{said:?}");
    let status = refused(fleet.fleet("operator").delete_backup(delete).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut types: Vec<_> = agent
        .offers()
        .into_iter()
        .map(|offer| offer.request.unwrap().type_url)
        .collect();
    types.dedup(); // An offer may be repeated.
    let of_fleet = |name: &str| format!("type.googleapis.com/hostler.fleet.v1.{name}Request");
    assert_eq!(
        types,
        ["VerifyBackup", "RestoreBackup", "DeleteBackup"].map(of_fleet)
    );
    for (restore, word) in [
        (rpc::RestoreBackupRequest::default(), "not a backup's id"),
        (
            rpc::RestoreBackupRequest {
                id: "abcd".into(),
                ..Default::default()
            },
            "neither a target nor paths",
        ),
        (
            rpc::RestoreBackupRequest {
                id: "abcd".into(),
                paths: vec!["../x".into()],
                ..Default::default()
            },
            "../x",
        ),
        (
            rpc::RestoreBackupRequest {
                id: "abcd".into(),
                paths: vec!["x".repeat(4000); 100],
                ..Default::default()
            },
            "bytes; at most",
        ),
    ] {
        let status = refused(fleet.fleet("operator").restore_backup(restore).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(word), "{status}");
    }
}

#[tokio::test]
async fn measures_reach_every_stream_and_are_not_kept() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, mut of_fleet) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let request = operations::ExpandStorageRequest { min_bytes: 1 << 30 };
    let (_, mut of_operations) = begun(fleet.operations("operator").expand_storage(request).await).await;
    let id = fleet.history().await[0].id.clone();
    let request = rpc::WatchOperationRequest { id: id.clone() };
    let call = fleet.fleet("viewer").watch_operation(request).await;
    let (_, mut watched) = begun(call).await;
    let measure = agent_rpc::Measure {
        what: "relocate /dev/sdb".into(),
        done_bytes: GIB / 4,
        total_bytes: GIB,
        bytes_per_second: 1 << 20,
        seconds_left: Some(60),
        ..Default::default()
    };
    let words = hostler_common::measure::text(&measure);
    agent.measure(&measure).await;
    loop {
        let message = of_fleet.message().await.unwrap().unwrap();
        if let Some(told) = &message.measure {
            assert_eq!(
                (told, &message.msg, &message.operation_id),
                (&measure, &words, &id)
            );
            assert_eq!(message.state(), Active);
            break;
        }
    }
    loop {
        let message = of_operations.message().await.unwrap().unwrap();
        assert_eq!(message.state(), Active);
        if message.msg == words {
            break;
        }
    }
    loop {
        let message = watched.message().await.unwrap().unwrap();
        if message.measure.is_some() {
            assert_eq!(
                (message.measure, message.msg),
                (Some(measure.clone()), words.clone())
            );
            break;
        }
    }
    // A flood becomes about one a second; none comes after the end.
    for _ in 0..200 {
        agent.measure(&measure).await;
    }
    agent.behave(Behaviour::Completes);
    let rest = collect(of_fleet).await.unwrap();
    assert!(
        rest.iter().filter(|(_, msg)| *msg == words).count() < 20,
        "{rest:?}"
    );
    assert_eq!(ended(&rest).0, Completed);
    let request = rpc::GetOperationRequest { id };
    let kept = fleet
        .fleet("viewer")
        .get_operation(request)
        .await
        .unwrap()
        .into_inner();
    let logs = kept.operation.unwrap().lease.unwrap().logs;
    assert!(logs.iter().all(|log| log.message != words), "{logs:?}");
}

#[tokio::test]
async fn what_waits_is_cancelled_at_once_and_what_runs_by_its_agent() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, running) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let (_, waiting) = begun(shrink(&fleet, "tank", GIB).await).await;
    let history = fleet.history().await;
    let (waiting_id, running_id) = (&history[0].id, &history[1].id);
    let after = cancel(&fleet, waiting_id, "not\u{7} needed").await.unwrap();
    let words = "cancelled by spiffe://fleet.test/client/operator/test: not needed; it had not begun";
    assert_eq!((after.state(), after.message.as_str()), (Failed, words));
    assert_eq!(ended(&collect(waiting).await.unwrap()), (Failed, words));
    let again = cancel(&fleet, waiting_id, "").await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    assert!(again.message().contains("has ended"), "{again}");
    agent.behave(Behaviour::Ignores); // Which neither renews nor answers a cancel.
    for _ in 0..2 {
        let after = cancel(&fleet, running_id, "too slow").await.unwrap();
        assert_eq!(after.state(), Active);
        let asked = after.lease.unwrap().logs;
        let asked = asked
            .iter()
            .filter(|log| log.message.starts_with("cancel asked for by "));
        assert_eq!(asked.count(), 1, "the second says nothing new");
    }
    let told = agent
        .until("the cancel", |message| match message {
            FromCoordinator::Cancel(cancel) => Some(cancel.clone()),
            _ => None,
        })
        .await;
    assert_eq!(&told.operation_id, running_id);
    assert_eq!(told.by, "spiffe://fleet.test/client/operator/test: too slow");
    // The same request is another operation now.
    let (next, _) = begun(expand(&fleet, "tank", GIB).await).await;
    assert!(next.1.contains("waits for operation"), "{next:?}");
    agent.behave(Behaviour::Renews);
    let said = collect(running).await.unwrap();
    assert!(
        ended(&said).0 == Failed && ended(&said).1.starts_with("cancelled by spiffe://"),
        "{said:?}"
    );
    assert_eq!(size(&fleet.pools().await), SIZE);
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_is_said_to_be() {
    let (fleet, agent) = with_pool(Behaviour::Holds).await;
    let (_, stream) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let id = fleet.history().await[0].id.clone();
    cancel(&fleet, &id, "").await.unwrap();
    agent.behave(Behaviour::Completes);
    let said = collect(stream).await.unwrap();
    assert_eq!(
        ended(&said),
        (Completed, "done; it was done before it could be cancelled")
    );
}

#[tokio::test]
async fn a_cancel_is_refused_where_it_makes_no_sense() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let unknown = cancel(&fleet, "01900000-0000-7000-8000-000000000000", "").await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        cancel(&fleet, "x", "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let delete = rpc::DeleteBackupRequest {
        id: "abcd".into(),
        ..Default::default()
    };
    let (_, _stream) = begun(fleet.fleet("admin").delete_backup(delete).await).await;
    agent.until_holds(1).await;
    let id = fleet.history().await[0].id.clone();
    let status = cancel(&fleet, &id, "").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("its agent does not allow it"),
        "{status}"
    );
    let request = rpc::CancelOperationRequest {
        id,
        reason: String::new(),
    };
    let status = fleet.fleet("viewer").cancel_operation(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_owner_that_stays_away_fails_the_operation_in_words_and_the_pool_stays_listed() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    agent.kill();
    wait::until("the owner is gone", || async {
        (!fleet.pools().await[0].connected).then_some(())
    })
    .await;
    let said = told(expand(&fleet, "tank", GIB).await).await;
    assert!(
        said.iter()
            .any(|(state, msg)| *state == Scheduled && msg.contains("not connected")),
        "{said:?}"
    );
    assert!(
        ended(&said).0 == Failed && ended(&said).1.contains("host h1"),
        "{said:?}"
    );
    let pools = fleet.pools().await;
    assert_eq!(size(&pools), SIZE, "the last figures stay");
    assert!(pools[0].reason.contains("not connected"), "{}", pools[0].reason);
}

#[tokio::test]
async fn pools_operations_and_cancels_survive_a_restart_of_the_coordinator() {
    let (mut fleet, agent) = with_pool(Behaviour::Holds).await;
    let (_, running) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let (_, waiting) = begun(shrink(&fleet, "tank", GIB).await).await;
    let history = fleet.history().await;
    cancel(&fleet, &history[1].id, "").await.unwrap();
    fleet.restart().await;
    for cut in [
        collect(running).await.unwrap_err(),
        collect(waiting).await.unwrap_err(),
    ] {
        assert_eq!(cut.code(), Code::Unavailable);
    }
    let pools = fleet.pools().await;
    assert_eq!(
        (pools.len(), size(&pools), pools[0].operation_ids.len()),
        (1, SIZE, 2)
    );
    let mut again = Setup::of("h1", &[]).pool("tank").that(Behaviour::Renews);
    again.token.clone_from(&agent.token);
    drop(agent);
    let _agent = again.start(&fleet).await;
    let request = rpc::WatchOperationRequest {
        id: history[1].id.clone(),
    };
    let said = told(fleet.fleet("viewer").watch_operation(request).await).await;
    assert!(
        ended(&said).0 == Failed && ended(&said).1.starts_with("cancelled by "),
        "the cancel is told again: {said:?}"
    );
    let (attached, _) = begun(shrink(&fleet, "tank", GIB).await).await;
    assert!(attached.1.starts_with("attached to operation "), "{attached:?}");
    assert_eq!(fleet.history().await.len(), 2);
}

#[tokio::test]
async fn an_operation_that_needs_attention_bars_its_pool_until_somebody_has_looked() {
    let (fleet, _agent) = with_pool(Behaviour::NeedsAttention).await;
    let said = told(expand(&fleet, "tank", GIB).await).await;
    assert!(ended(&said).1.contains("tank needs attention"), "{said:?}");
    let said = told(shrink(&fleet, "tank", GIB).await).await;
    assert!(
        said.len() == 1 && said[0].1.contains("operations resolve"),
        "{said:?}"
    );
    let pools = fleet.pools().await;
    assert!(pools[0].reason.contains("needs attention"), "{}", pools[0].reason);
    let request = rpc::ResolveOperationRequest {
        id: fleet.history().await[0].id.clone(),
        note: "looked".into(),
    };
    fleet.fleet("admin").resolve_operation(request).await.unwrap();
    fleet.until_pool("tank").await;
}

#[tokio::test]
async fn of_many_calls_at_once_each_amount_is_one_operation_and_the_queue_is_bounded() {
    let (fleet, agent) = with_pool(Behaviour::Ignores).await;
    let operator = fleet.fleet("operator");
    let call = |min_bytes| {
        let mut operator = operator.clone();
        let request = rpc::ExpandStorageRequest {
            min_bytes,
            ..Default::default()
        };
        tokio::spawn(async move { begun(operator.expand_storage(request).await).await })
    };
    let same: Vec<_> = (0..10).map(|_| call(7)).collect();
    let mut streams = Vec::new();
    for call in same {
        streams.push(call.await.unwrap());
    }
    assert_eq!(fleet.history().await.len(), 1, "all of them follow one");
    let others: Vec<_> = (100..120).map(call).collect();
    let mut busy = 0;
    for call in others {
        let (first, stream) = call.await.unwrap();
        match first {
            (Failed, msg) => {
                assert!(msg.contains("tank is busy: 16 operations wait on it"), "{msg}");
                busy += 1;
            }
            queued => streams.push((queued, stream)),
        }
    }
    assert_eq!((busy, fleet.history().await.len()), (5, 16));
    let asked: u64 = fleet
        .history()
        .await
        .iter()
        .map(|operation| {
            let request = operation
                .lease
                .as_ref()
                .unwrap()
                .operation_request
                .as_ref()
                .unwrap();
            match hostler_common::operation::Request::of(request).unwrap() {
                hostler_common::operation::Request::ExpandStorage { min } => min.0,
                other => panic!("{other:?}"),
            }
        })
        .sum();
    agent.behave(Behaviour::Completes);
    for (_, stream) in streams {
        assert_eq!(ended(&collect(stream).await.unwrap()).0, Completed);
    }
    assert_eq!(size(&fleet.pools().await), SIZE + asked, "each was done once");
}

#[tokio::test]
async fn a_burst_of_cancels_and_ends_leaves_the_pool_free_and_every_stream_with_one_end() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    for round in 0..5 {
        let mut streams = Vec::new();
        for bytes in 1..4 {
            streams.push(begun(expand(&fleet, "tank", 10 * round + bytes).await).await.1);
        }
        let unended = rpc::ListOperationsRequest {
            unended: true,
            ..Default::default()
        };
        let page = fleet.fleet("viewer").list_operations(unended).await.unwrap();
        let operations = page.into_inner().operations;
        if round % 2 == 0 {
            agent.behave(Behaviour::Completes);
        }
        for operation in &operations {
            // It may have ended meanwhile.
            match cancel(&fleet, &operation.id, "").await {
                Ok(_) => {}
                Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status}"),
            }
        }
        for stream in streams {
            let said = collect(stream).await.unwrap();
            let ends = said
                .iter()
                .filter(|(state, _)| matches!(state, Completed | Failed));
            assert_eq!(ends.count(), 1, "{said:?}");
        }
        agent.behave(Behaviour::Renews);
    }
    fleet.until_pool("tank").await;
}
