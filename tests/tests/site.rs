//! The site around the fleet: status, hosts that are declared lost, and the only way off the list.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::fleet::v1::{
    Operation, ProposeOperationRequest, WatchHypervisorsRequest, watch_hypervisors_response,
};
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use hostler_tests::agent::{Behaviour, Setup};
use hostler_tests::fleet::{Fleet, collect};
use hostler_tests::wait;
use tonic::{Code, Status};

/// Nothing ends by its time: only what is asked for.
async fn patient() -> Fleet {
    Fleet::start_with(|config| {
        config.operations.lease = Duration::from_secs(600);
        config.operations.host_patience = Duration::from_secs(600);
        config.operations.resume_patience = Duration::from_secs(600);
    })
    .await
}

async fn lose(fleet: &Fleet, host: &str) -> Result<Vec<Operation>, Status> {
    let request = site::LoseAgentRequest {
        host: host.to_owned(),
        reason: "scrapped".to_owned(),
    };
    let answer = fleet.site("admin").lose_agent(request).await?;
    Ok(answer.into_inner().operations)
}

async fn expunge(fleet: &Fleet, id: &str) -> Result<(), Status> {
    let request = site::ExpungeHypervisorRequest {
        id: id.to_owned(),
        reason: String::new(),
    };
    fleet.site("admin").expunge_hypervisor(request).await.map(drop)
}

async fn expunge_pool(fleet: &Fleet, name: &str) -> Result<(), Status> {
    let request = site::ExpungeStoragePoolRequest {
        name: name.to_owned(),
        reason: String::new(),
    };
    fleet.site("admin").expunge_storage_pool(request).await.map(drop)
}

async fn status(fleet: &Fleet) -> site::GetStatusResponse {
    let request = site::GetStatusRequest {};
    fleet
        .site("viewer")
        .get_status(request)
        .await
        .unwrap()
        .into_inner()
}

async fn agents(fleet: &Fleet) -> Vec<site::Agent> {
    let request = site::ListAgentsRequest {};
    let answer = fleet.site("viewer").list_agents(request).await.unwrap();
    answer.into_inner().agents
}

async fn until_gone(fleet: &Fleet, host: &str) {
    wait::until(&format!("{host} is gone"), || async {
        let agents = agents(fleet).await;
        agents
            .iter()
            .any(|agent| agent.host == host && !agent.connected)
            .then_some(())
    })
    .await;
}

fn refused(outcome: Result<(), Status>) -> String {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    status.message().to_owned()
}

#[tokio::test]
async fn a_host_that_is_declared_lost_releases_what_it_held_and_may_come_back() {
    let fleet = patient().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Holds)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let (_, creating) = fleet.creating("hv1").await;
    agent.until_holds(1).await;
    let (_, destroying) = fleet.destroying("hv1").await;
    let alive = lose(&fleet, "h1").await.unwrap_err();
    assert_eq!(alive.code(), Code::FailedPrecondition, "{alive}");
    assert!(alive.message().contains("is connected from 127.0.0.1"), "{alive}");
    agent.kill();
    until_gone(&fleet, "h1").await;
    let ended = lose(&fleet, "h1").await.unwrap();
    let said = "host h1 was declared lost by spiffe://fleet.test/client/admin/test: scrapped";
    let messages: Vec<_> = ended.iter().map(|it| (it.state(), it.message.as_str())).collect();
    assert_eq!(messages, [(OperationState::Failed, said); 2]);
    for stream in [
        collect(creating).await.unwrap(),
        collect(destroying).await.unwrap(),
    ] {
        assert_eq!(stream.last(), Some(&(OperationState::Failed, said.to_owned())));
    }
    assert!(
        lose(&fleet, "h1").await.unwrap().is_empty(),
        "once more, nothing is left"
    );
    let mut back = Setup::of("h1", &["hv1"]);
    back.journaled = vec![ended[1].id.clone()];
    let back = back.start(&fleet).await;
    let told = back
        .until("Welcome", |message| match message {
            Message::Welcome(welcome) => Some(welcome.ended_operation_ids.clone()),
            _ => None,
        })
        .await;
    assert_eq!(told, [ended[1].id.clone()], "its journal is told");
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let again = fleet.create("hv1").await.unwrap();
    assert_eq!(again.last().unwrap().0, OperationState::Completed, "{again:?}");
}

#[tokio::test]
async fn what_needed_attention_on_a_lost_host_does_not_any_more_and_locks_of_people_stay() {
    let fleet = patient().await;
    let agent = Setup::of("h1", &["hv1", "hv2"])
        .that(Behaviour::NeedsAttention)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    fleet.create("hv1").await.unwrap();
    let before = status(&fleet).await;
    assert_eq!(before.needing_attention, 1);
    assert!(
        before.warnings[0].starts_with("hv1 needs attention since operation "),
        "{before:?}"
    );
    let proposal = n0stack::ProposeOperationRequest {
        name: "hv2".to_owned(),
        lock_for_seconds: 600,
        proposing_peer_token: "a-token-of-thirty-two-characters".to_owned(),
        ..Default::default()
    };
    let lock = ProposeOperationRequest {
        proposal: Some(proposal),
        reason: "disk swap".to_owned(),
    };
    fleet.fleet("operator").propose_operation(lock).await.unwrap();
    agent.kill();
    until_gone(&fleet, "h1").await;
    let ended = lose(&fleet, "h1").await.unwrap();
    assert_eq!(ended.len(), 1, "{ended:?}");
    let after = status(&fleet).await;
    assert_eq!((after.needing_attention, after.operations_unended), (0, 1));
    let unended = refused(expunge(&fleet, "hv2").await);
    assert!(unended.contains("on hv2 has not ended"), "{unended}");
    expunge(&fleet, "hv1").await.unwrap();
}

#[tokio::test]
async fn a_hypervisor_leaves_the_list_only_when_nothing_reports_or_uses_it() {
    let mut fleet = patient().await;
    let agent = Setup::of("h1", &["hv1", "hv2"])
        .that(Behaviour::Holds)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let reported = refused(expunge(&fleet, "hv1").await);
    assert!(
        reported.contains("is reported by the agent of host h1"),
        "{reported}"
    );
    let (_, stream) = fleet.creating("hv1").await;
    agent.until_holds(1).await;
    agent.kill();
    until_gone(&fleet, "h1").await;
    let unended = refused(expunge(&fleet, "hv1").await);
    assert!(unended.contains("hostler agents lost h1"), "{unended}");
    lose(&fleet, "h1").await.unwrap();
    collect(stream).await.unwrap();
    let request = WatchHypervisorsRequest {};
    let watching = fleet.fleet("viewer").watch_hypervisors(request).await.unwrap();
    let mut watching = watching.into_inner();
    watching.message().await.unwrap().unwrap();
    expunge(&fleet, "hv1").await.unwrap();
    assert_eq!(fleet.state("hv1").await, None, "gone when the answer is there");
    let told = loop {
        let event = watching.message().await.unwrap().unwrap().event;
        if let Some(watch_hypervisors_response::Event::Gone(gone)) = event {
            break gone.id;
        }
    };
    assert_eq!(told, "hv1", "and whoever watches is told");
    assert_eq!(
        expunge(&fleet, "hv1").await.unwrap_err().code(),
        Code::NotFound,
        "and not twice"
    );
    fleet.restart().await;
    let listed: Vec<_> = fleet.list().await.into_iter().map(|it| it.id).collect();
    assert_eq!(listed, ["hv2"], "for good, and nothing else");
    let _agent = Setup::of("h1", &["hv1", "hv2"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let said = fleet.create("hv1").await.unwrap();
    assert_eq!(
        said.last().unwrap().0,
        OperationState::Completed,
        "it came back as a new one: {said:?}"
    );
}

#[tokio::test]
async fn a_pool_leaves_the_list_as_a_hypervisor_does() {
    let fleet = patient().await;
    let agent = Setup::of("h1", &["hv1"]).pool("tank").start(&fleet).await;
    fleet.until_pool("tank").await;
    let reported = refused(expunge_pool(&fleet, "tank").await);
    assert!(reported.contains("storage pool tank is reported"), "{reported}");
    agent.kill();
    until_gone(&fleet, "h1").await;
    expunge_pool(&fleet, "tank").await.unwrap();
    assert!(fleet.pools().await.is_empty());
    assert_eq!(fleet.list().await.len(), 1, "the hypervisor stays");
    let unknown = expunge_pool(&fleet, "tank").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn agents_and_the_status_say_who_is_there_and_what_to_look_at() {
    let fleet = patient().await;
    let empty = status(&fleet).await;
    assert_eq!((empty.coordinator.as_str(), empty.agents), ("c1", 0));
    assert_eq!((empty.cas.len(), empty.warnings.len()), (1, 0), "{empty:?}");
    assert!(empty.certificate_not_after.is_some() && empty.started_at.is_some());
    let one = Setup::of("h1", &["hv1"]).pool("tank").start(&fleet).await;
    let _two = Setup::of("h2", &["hv2"]).start(&fleet).await;
    fleet.until_state("hv2", HypervisorState::AvailableToCreate).await;
    fleet.until_pool("tank").await;
    let listed = agents(&fleet).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let first = &listed[0];
    assert_eq!(
        (first.host.as_str(), first.connected, first.version.as_str()),
        ("h1", true, hostler_common::VERSION)
    );
    assert!(first.address.starts_with("127.0.0.1:"), "{first:?}");
    assert!(
        first.certificate_not_after.is_some() && first.last_heard.is_some(),
        "{first:?}"
    );
    assert_eq!(
        (&first.hypervisor_ids[..], &first.pools[..]),
        (&["hv1".to_owned()][..], &["tank".to_owned()][..])
    );
    one.kill();
    until_gone(&fleet, "h1").await;
    let after = status(&fleet).await;
    assert_eq!(
        (
            after.agents,
            after.agents_connected,
            after.hypervisors,
            after.pools
        ),
        (2, 1, 2, 1)
    );
    assert!(
        after.warnings[0].starts_with("1 of 2 agents are not connected (h1): "),
        "{after:?}"
    );
    let gone = &agents(&fleet).await[0];
    assert!(gone.address.is_empty() && gone.last_heard.is_some(), "{gone:?}");
}

#[tokio::test]
async fn nobody_is_declared_lost_without_a_name_and_a_reason() {
    let fleet = patient().await;
    let unknown = lose(&fleet, "nobody").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    let _agent = Setup::of("host-17", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let mistyped = lose(&fleet, "host-71").await.unwrap_err();
    assert!(
        mistyped.message().ends_with("; names like it: host-17"),
        "{mistyped}"
    );
    for (host, reason) in [("h1", " "), ("../h1", "scrapped")] {
        let request = site::LoseAgentRequest {
            host: host.to_owned(),
            reason: reason.to_owned(),
        };
        let malformed = fleet.site("admin").lose_agent(request).await.unwrap_err();
        assert_eq!(malformed.code(), Code::InvalidArgument, "{malformed}");
    }
}
