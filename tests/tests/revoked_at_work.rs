//! A host is revoked in the middle of an operation: what becomes of the operation, of its lock, and of the host that comes
//! back, or does not.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::fleet::v1::Operation;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::operations::v1::{CreateHypervisorResponse, HypervisorState, OperationState};
use hostler_tests::agent::{Behaviour, Setup, SimulatedAgent};
use hostler_tests::enrolled;
use hostler_tests::fleet::{Fleet, collect};
use hostler_tests::wait;
use tonic::Streaming;

/// Host h1 works on hv1, and is revoked. Answers with what followed the operation, and with what the host knows of it.
async fn revoked_at_work(fleet: &Fleet) -> (Streaming<CreateHypervisorResponse>, Setup) {
    let setup = || Setup::of("h1", &["hv1"]).that(Behaviour::Renews);
    let working = setup();
    let token = working.token.clone();
    let agent = working.start(fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let (_, following) = fleet.creating("hv1").await;
    agent.until_holds(1).await;
    let id = newest(fleet).await.id;
    let request = site::RevokeIdentityRequest {
        subject: "agent/h1".to_owned(),
        reason: "stolen".to_owned(),
        unknown: false,
    };
    fleet.site("admin").revoke_identity(request).await.unwrap();
    agent.until_ended().await;
    let after = Setup {
        token,
        journaled: vec![id],
        ..setup().that(Behaviour::Completes)
    };
    (following, after)
}

async fn newest(fleet: &Fleet) -> Operation {
    fleet.history().await.remove(0)
}

async fn until_waits_again(fleet: &Fleet) -> Operation {
    wait::until("its lease has run out", || async {
        let operation = newest(fleet).await;
        (operation.state() == OperationState::Scheduled).then_some(operation)
    })
    .await
}

#[tokio::test]
async fn a_host_that_enrols_again_goes_on_with_what_it_had_begun() {
    let fleet = Fleet::start().await;
    let (following, after) = revoked_at_work(&fleet).await;
    let waiting = until_waits_again(&fleet).await;
    assert!(
        waiting
            .message
            .contains("the agent of h1 has not renewed its lease of 2 s"),
        "{waiting:?}"
    );
    let said = fleet.warnings().await;
    assert!(
        said[0]
            .starts_with("revoked and not back: h1; 1 of their operations has not ended. Enrol a host again"),
        "{said:?}"
    );

    let channel = enrolled::channel(&fleet, "h1").await;
    let agent = SimulatedAgent::over(after, channel).await;
    let told = agent
        .until("Welcome", |message| match message {
            Message::Welcome(welcome) => Some(welcome.ended_operation_ids.clone()),
            _ => None,
        })
        .await;
    assert_eq!(told, Vec::<String>::new(), "what it had begun is still its own");
    let followed = collect(following).await.unwrap();
    assert_eq!(
        followed.last().unwrap().0,
        OperationState::Completed,
        "{followed:?}"
    );
    assert_eq!(newest(&fleet).await.attempts, 2);
    fleet
        .until_state("hv1", HypervisorState::AvailableToDestroy)
        .await;
    assert_eq!(fleet.warnings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_host_that_does_not_come_back_holds_nothing_for_ever() {
    let fleet = Fleet::start_with(|config| {
        config.operations.lease = Duration::from_secs(2);
        config.operations.resume_patience = Duration::from_secs(1);
    })
    .await;
    let (following, _) = revoked_at_work(&fleet).await;
    let followed = collect(following).await.unwrap();
    let (state, said) = followed.last().unwrap();
    assert_eq!(*state, OperationState::Failed, "{followed:?}");
    for words in [
        "host h1 was revoked at ",
        "hostler tokens create --host h1",
        "hostler agents lost h1",
        "hv1 needs attention since operation ",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let said = fleet.warnings().await;
    assert!(
        said[0].starts_with("hv1 needs attention") && said[1].starts_with("revoked and not back: h1. Enrol"),
        "{said:?}"
    );
    let lose = site::LoseAgentRequest {
        host: "h1".to_owned(),
        reason: "stolen".to_owned(),
    };
    fleet.site("admin").lose_agent(lose).await.unwrap();
    let said = fleet.warnings().await;
    assert!(
        said.iter().all(|line| !line.contains("needs attention")),
        "{said:?}"
    );
}
