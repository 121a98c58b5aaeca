//! What clients rely on (wire.md), through a real coordinator over mTLS with simulated agents.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::rpc::hostler::agent::v1 as agent_rpc;
use hostler_common::rpc::operations::v1::{
    CreateBackupRequest, DestroyHypervisorsRequest, ExpandStorageRequest, HypervisorCapabilities,
    HypervisorState, OperationState, ShrinkStorageRequest,
};
use hostler_tests::agent::{Behaviour, Setup};
use hostler_tests::fleet::{Fleet, Said, collect};
use hostler_tests::wait;

use HypervisorState::{AvailableToCreate, AvailableToDestroy, Unknown};
use OperationState::{Active, Completed, Failed, Scheduled};

/// The rules that every stream keeps: words in each message, the end once and last.
fn assert_well_told(said: &[Said]) {
    let (last, before) = said.split_last().expect("at least one message");
    assert!(
        said.iter().all(|(_, msg)| !msg.is_empty()),
        "a message without words: {said:?}"
    );
    assert!(
        matches!(last.0, Completed | Failed),
        "the last one is the end: {said:?}"
    );
    assert!(
        before
            .iter()
            .all(|(state, _)| matches!(state, Scheduled | Active)),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_hypervisor_is_created_and_destroyed_and_the_list_follows_at_once() {
    let fleet = Fleet::start().await;
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let said = fleet.create("hv1").await.unwrap();
    assert_eq!(
        fleet.state("hv1").await,
        Some(AvailableToDestroy),
        "who hears COMPLETED lists the new state"
    );
    assert_well_told(&said);
    assert_eq!(
        (said[0].0, said.last().unwrap().0),
        (Scheduled, Completed),
        "{said:?}"
    );
    assert!(
        said[0].1.starts_with("operation "),
        "the first message names the operation: {said:?}"
    );
    let said = fleet.destroy("hv1").await.unwrap();
    assert_eq!(fleet.state("hv1").await, Some(AvailableToCreate));
    assert_well_told(&said);
}

#[tokio::test]
async fn the_list_shows_what_was_reported_and_keeps_it_when_the_agent_is_gone() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1", "hv2"]).start(&fleet).await;
    fleet.until_state("hv2", AvailableToCreate).await;
    let gpu = agent_rpc::Gpu {
        brand: "NVIDIA".into(),
        model: "T4".into(),
        ..Default::default()
    };
    let path = agent_rpc::SharedStorage {
        path: "/isard".into(),
        usable: true,
        ..Default::default()
    };
    let inventory = agent_rpc::Inventory {
        cpu_threads: 64,
        memory_mb: 262_144,
        gpus: vec![gpu.clone(), gpu],
        shared_storage: vec![path.clone()],
        ..Default::default()
    };
    agent.report(inventory.clone()).await;
    let listed = wait::until("the inventory is listed", || async {
        fleet
            .list()
            .await
            .into_iter()
            .find(|listed| listed.id == "hv1" && listed.cpu == 64)
    })
    .await;
    assert_eq!(
        (listed.ram, listed.gpus.len(), listed.gpus[0].model.as_str()),
        (262_144, 2, "T4")
    );
    let capabilities: Vec<_> = listed.capabilities().collect();
    assert_eq!(
        capabilities,
        [HypervisorCapabilities::Storage, HypervisorCapabilities::Gpu]
    );
    let broken = agent_rpc::SharedStorage {
        usable: false,
        problem: "not mounted".into(),
        ..path
    };
    agent
        .report(agent_rpc::Inventory {
            shared_storage: vec![broken],
            ..inventory
        })
        .await;
    wait::until("the capability goes", || async {
        let list = fleet.list().await;
        (list[0].capabilities().collect::<Vec<_>>() == [HypervisorCapabilities::Gpu]).then_some(())
    })
    .await;
    agent.kill();
    fleet.until_state("hv1", Unknown).await;
    let list = fleet.list().await;
    assert_eq!(
        list.iter().map(|listed| listed.id.as_str()).collect::<Vec<_>>(),
        ["hv1", "hv2"]
    );
    assert_eq!(
        (list[0].cpu, list[0].gpus.len()),
        (64, 2),
        "the last inventory stays"
    );
}

#[tokio::test]
async fn a_failure_is_streamed_with_its_words_and_frees_the_hypervisor() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Fails("step 'x' failed: no disk".into()))
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let said = fleet.create("hv1").await.unwrap();
    assert_well_told(&said);
    assert_eq!(
        said.last().unwrap(),
        &(Failed, "step 'x' failed: no disk".to_owned())
    );
    assert_eq!(fleet.state("hv1").await, Some(AvailableToCreate));
    agent.behave(Behaviour::Completes);
    assert_eq!(fleet.create("hv1").await.unwrap().last().unwrap().0, Completed);
}

#[tokio::test]
async fn a_repeat_attaches_while_it_runs_and_succeeds_at_once_after_it() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Renews)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let (_, first) = fleet.creating("hv1").await;
    fleet.until_state("hv1", Unknown).await;
    drop(first); // Who hangs up does not cancel.
    let (attached, again) = fleet.creating("hv1").await;
    assert!(attached.1.contains("is under way"), "{attached:?}");
    agent.behave(Behaviour::Completes);
    let rest = collect(again).await.unwrap();
    assert_well_told(&rest);
    assert_eq!(rest.last().unwrap().0, Completed);
    assert_eq!(fleet.history().await.len(), 1, "one operation served both calls");
    let at_once = fleet.create("hv1").await.unwrap();
    assert_eq!(at_once.len(), 1);
    assert_eq!(at_once[0].0, Completed);
    assert_eq!(fleet.history().await.len(), 1, "nothing was done again");
}

#[tokio::test]
async fn the_opposite_waits_for_its_turn() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Renews)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let create = tokio::spawn(async move { (fleet.create("hv1").await.unwrap(), fleet) });
    agent
        .until("the offer", |m| {
            matches!(m, agent_rpc::session_response::Message::ProposeAnswer(_)).then_some(())
        })
        .await;
    // The fleet moved into the task; a second client needs only the coordinator behind it.
    agent.behave(Behaviour::Completes);
    let (said, fleet) = create.await.unwrap();
    assert_eq!(said.last().unwrap().0, Completed);
    agent.behave(Behaviour::Renews);
    let (_, destroying) = fleet.destroying("hv1").await;
    let (queued, creating) = fleet.creating("hv1").await;
    assert_eq!(queued.0, Scheduled);
    assert!(queued.1.contains("waits for operation"), "{queued:?}");
    agent.behave(Behaviour::Completes);
    assert_eq!(collect(destroying).await.unwrap().last().unwrap().0, Completed);
    assert_eq!(collect(creating).await.unwrap().last().unwrap().0, Completed);
    assert_eq!(fleet.state("hv1").await, Some(AvailableToDestroy));
}

#[tokio::test]
async fn trouble_with_one_of_many_is_active_and_failed_comes_once_last() {
    let fleet = Fleet::start().await;
    let _good = Setup::of("h1", &["hv1", "hv2"]).start(&fleet).await;
    let _bad = Setup::of("h2", &["hv3"])
        .that(Behaviour::Fails("no KVM".into()))
        .start(&fleet)
        .await;
    for id in ["hv1", "hv2", "hv3"] {
        fleet.until_state(id, AvailableToCreate).await;
    }
    let said = fleet.create_all(&["hv1", "hv3", "nobody", "hv2"]).await.unwrap();
    assert_well_told(&said);
    assert_eq!(said[0].0, Scheduled);
    let last = said.last().unwrap();
    assert_eq!(last.0, Failed);
    assert!(
        last.1.contains("2 of 4") && last.1.contains("hv3") && last.1.contains("nobody"),
        "{}",
        last.1
    );
    assert_eq!(
        fleet.state("hv1").await,
        Some(AvailableToDestroy),
        "the others went on"
    );
    assert_eq!(fleet.state("hv2").await, Some(AvailableToDestroy));
    let request = DestroyHypervisorsRequest {
        ids: vec!["hv1".into(), "hv2".into()],
    };
    let stream = fleet
        .operations("operator")
        .destroy_hypervisors(request)
        .await
        .unwrap()
        .into_inner();
    let said = collect(stream).await.unwrap();
    assert_well_told(&said);
    assert_eq!(said.last().unwrap().0, Completed);
}

#[tokio::test]
async fn storage_calls_fail_in_words_while_there_is_no_pool() {
    let fleet = Fleet::start().await;
    let mut operator = fleet.operations("operator");
    let expand = operator
        .expand_storage(ExpandStorageRequest { min_bytes: 1 })
        .await
        .unwrap()
        .into_inner();
    let shrink = operator
        .shrink_storage(ShrinkStorageRequest { max_bytes: 1 })
        .await
        .unwrap()
        .into_inner();
    let backup = operator
        .create_backup(CreateBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    for said in [
        collect(expand).await.unwrap(),
        collect(shrink).await.unwrap(),
        collect(backup).await.unwrap(),
    ] {
        assert_eq!((said.len(), said[0].0), (1, Failed), "{said:?}");
        assert!(
            said[0].1.starts_with("no storage pool is configured: "),
            "with a way out: {said:?}"
        );
    }
}

#[tokio::test]
async fn everything_is_known_again_after_a_restart_and_goes_on() {
    let mut fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1", "hv2"]).start(&fleet).await;
    fleet.until_state("hv1", AvailableToCreate).await;
    fleet.create("hv1").await.unwrap();
    agent.behave(Behaviour::Ignores);
    let (_, stream) = fleet.creating("hv2").await;
    fleet.restart().await;
    let cut = collect(stream).await.unwrap_err();
    assert_eq!(cut.code(), tonic::Code::Unavailable);
    assert!(cut.message().contains("repeat the call"), "{}", cut.message());
    let list = fleet.list().await;
    assert_eq!(list.len(), 2, "never a short list: {list:?}");
    assert!(
        list.iter()
            .all(|listed| listed.state() == Unknown && listed.cpu == 8),
        "{list:?}"
    );
    assert_eq!(fleet.history().await.len(), 2);
    let _agent = Setup::of("h1", &["hv1", "hv2"]).start(&fleet).await;
    let said = fleet.create("hv2").await.unwrap();
    assert_eq!(
        said.last().unwrap().0,
        Completed,
        "the operation of before goes on: {said:?}"
    );
    assert_eq!(fleet.history().await.len(), 2);
}

#[tokio::test]
async fn a_host_that_stays_away_fails_the_operation_in_words() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", AvailableToCreate).await;
    agent.kill();
    fleet.until_state("hv1", Unknown).await;
    let said = fleet.create("hv1").await.unwrap();
    assert_well_told(&said);
    assert!(
        said.iter()
            .any(|(state, msg)| *state == Scheduled && msg.contains("not connected")),
        "{said:?}"
    );
    let last = said.last().unwrap();
    assert!(
        last.0 == Failed && last.1.contains("host h1") && last.1.contains("repeat the call"),
        "{last:?}"
    );
}

#[tokio::test]
async fn an_agent_that_vanishes_in_the_middle_is_waited_for_then_resumes() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Holds)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let (_, stream) = fleet.creating("hv1").await;
    agent
        .until("the lease", |m| {
            matches!(m, agent_rpc::session_response::Message::ProposeAnswer(_)).then_some(())
        })
        .await;
    agent.kill();
    let next = Setup::of("h1", &["hv1"]).start(&fleet).await;
    let said = collect(stream).await.unwrap();
    assert_well_told(&said);
    assert!(
        said.iter()
            .any(|(_, msg)| msg.contains("has not renewed its lease")),
        "{said:?}"
    );
    assert_eq!(said.last().unwrap().0, Completed);
    assert_eq!(next.offers().last().unwrap().attempt, 2);
    let operation = fleet.history().await.remove(0);
    assert_eq!(
        (operation.attempts, operation.fence),
        (2, 2),
        "each holder has its own fence"
    );
}

#[tokio::test]
async fn attempts_that_are_used_up_need_attention_and_only_a_person_frees_the_hypervisor() {
    let fleet = Fleet::start_with(|config| config.operations.max_attempts = 1).await;
    let _agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Holds)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let said = fleet.create("hv1").await.unwrap();
    assert_well_told(&said);
    assert!(said.last().unwrap().1.contains("needs attention"), "{said:?}");
    assert_eq!(fleet.state("hv1").await, Some(Unknown));
    let refused = fleet.create("hv1").await.unwrap();
    assert!(
        refused.len() == 1 && refused[0].1.contains("operations resolve"),
        "{refused:?}"
    );
    let id = fleet.history().await.remove(0).id;
    let request = hostler_common::rpc::hostler::fleet::v1::ResolveOperationRequest {
        id,
        note: "looked".into(),
    };
    let denied = fleet
        .fleet("operator")
        .resolve_operation(request.clone())
        .await
        .unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    fleet
        .fleet("admin")
        .resolve_operation(request.clone())
        .await
        .unwrap();
    fleet.until_state("hv1", AvailableToCreate).await;
    let twice = fleet.fleet("admin").resolve_operation(request).await.unwrap_err();
    assert_eq!(twice.code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn an_undo_that_failed_ends_what_waits_behind_it() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Renews)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let (_, creating) = fleet.creating("hv1").await;
    let (_, destroying) = fleet.destroying("hv1").await;
    agent.behave(Behaviour::NeedsAttention);
    let created = collect(creating).await.unwrap();
    assert!(
        created
            .last()
            .unwrap()
            .1
            .contains("an undo failed; hv1 needs attention"),
        "{created:?}"
    );
    let destroyed = collect(destroying).await.unwrap();
    let last = destroyed.last().unwrap();
    assert!(last.0 == Failed && last.1.starts_with("not begun"), "{last:?}");
}

#[tokio::test]
async fn an_agent_that_does_not_take_what_it_is_offered_is_not_waited_for_without_end() {
    let fleet =
        Fleet::start_with(|config| config.operations.take_patience = std::time::Duration::from_secs(1)).await;
    let _agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Ignores)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", AvailableToCreate).await;
    let said = fleet.create("hv1").await.unwrap();
    assert_well_told(&said);
    assert!(
        said.last().unwrap().1.contains("does not take the operation"),
        "{said:?}"
    );
    assert_eq!(fleet.state("hv1").await, Some(AvailableToCreate));
}
