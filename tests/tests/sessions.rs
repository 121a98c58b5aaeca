//! Who may open a session, for whom it speaks, and when it ends.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::agent_service_client::AgentServiceClient;
use hostler_common::rpc::hostler::agent::v1::session_request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::fleet::v1 as fleet_rpc;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use hostler_tests::agent::{Behaviour, Setup};
use hostler_tests::fleet::{Fleet, collect};

fn refusal(message: &Message) -> Option<String> {
    match message {
        Message::Refused(refused) => Some(refused.reason.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn two_agents_that_claim_one_host_do_not_throw_each_other_out() {
    let fleet = Fleet::start().await;
    let first = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let second = Setup::of("h1", &["hv1"]).start(&fleet).await;
    let reason = second.until("the refusal", refusal).await;
    assert!(
        reason.contains("host h1 is served by another agent") && reason.contains("127.0.0.1"),
        "{reason}"
    );
    let told = fleet.warnings().await;
    assert!(
        told[0].starts_with("two agents call themselves host h1: "),
        "{told:?}"
    );
    assert_eq!(
        fleet.create("hv1").await.unwrap().last().unwrap().0,
        OperationState::Completed
    );
    assert!(!first.offers().is_empty());
}

#[tokio::test]
async fn a_silent_session_gives_way_and_the_same_process_may_always_come_back() {
    let fleet = Fleet::start().await;
    let first = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    first.fall_silent();
    let second = Setup::of("h1", &["hv1"]).start(&fleet).await;
    second
        .until("the welcome", |m| matches!(m, Message::Welcome(_)).then_some(()))
        .await;
    first.until_ended().await;
    let mut third = Setup::of("h1", &["hv1"]);
    third.token.clone_from(&second.token);
    let third = third.start(&fleet).await;
    third
        .until("the welcome", |m| matches!(m, Message::Welcome(_)).then_some(()))
        .await;
    second.until_ended().await;
}

#[tokio::test]
async fn a_hypervisor_stays_with_its_host() {
    let fleet = Fleet::start().await;
    let _owner = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let thief = Setup::of("h2", &["hv1", "hv2"]).start(&fleet).await;
    let refused = thief
        .until("the refusal", |m| match m {
            Message::ReportAnswer(answer) => answer.refused.first().cloned(),
            _ => None,
        })
        .await;
    assert_eq!(refused.id, "hv1");
    assert!(
        refused.reason.contains("enrolled under host h1"),
        "{}",
        refused.reason
    );
    fleet.until_state("hv2", HypervisorState::AvailableToCreate).await;
    let request = fleet_rpc::GetHypervisorRequest { id: "hv1".into() };
    let owner = fleet
        .fleet("viewer")
        .get_hypervisor(request)
        .await
        .unwrap()
        .into_inner()
        .hypervisor
        .unwrap();
    assert_eq!(owner.host, "h1");
}

#[tokio::test]
async fn an_agent_cannot_touch_the_operations_of_another_host() {
    let fleet = Fleet::start().await;
    let _owner = Setup::of("h1", &["hv1"])
        .that(Behaviour::Ignores)
        .start(&fleet)
        .await;
    let thief = Setup::of("h2", &["hv2"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    fleet.creating("hv1").await;
    let operation_id = fleet.history().await.remove(0).id;
    let proposal = hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest {
        name: "hv1".into(),
        lock_for_seconds: 60,
        proposing_peer_token: thief.token.clone(),
        ..Default::default()
    };
    let propose = rpc::Propose {
        request_id: 9,
        operation_id: operation_id.clone(),
        proposal: Some(proposal),
        fence: 0,
        newest_fence: 0,
    };
    thief.send(session_request::Message::Propose(propose)).await;
    let answer = thief
        .until("the answer", |m| match m {
            Message::ProposeAnswer(answer) if answer.request_id == 9 => Some(answer.clone()),
            _ => None,
        })
        .await;
    assert!(
        !answer.accepted && answer.reason.contains("host h1"),
        "{answer:?}"
    );
    let finish = rpc::Finish {
        operation_id,
        fence: 1,
        outcome: rpc::Outcome::Done.into(),
        message: "mine".into(),
        process_token: thief.token.clone(),
    };
    thief.send(session_request::Message::Finish(finish)).await;
    let answer = thief
        .until("the answer", |m| match m {
            Message::FinishAnswer(answer) => Some(answer.clone()),
            _ => None,
        })
        .await;
    assert!(!answer.accepted, "{answer:?}");
    assert_eq!(fleet.history().await[0].state(), OperationState::Scheduled);
}

#[tokio::test]
async fn what_a_former_holder_says_changes_nothing() {
    let fleet = Fleet::start().await;
    let former = Setup::of("h1", &["hv1"])
        .that(Behaviour::Holds)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let (_, stream) = fleet.creating("hv1").await;
    former
        .until("the lease", |m| {
            matches!(m, Message::ProposeAnswer(_)).then_some(())
        })
        .await;
    let operation_id = former.offers()[0].operation_id.clone();
    former.kill();
    let next = Setup::of("h1", &["hv1"])
        .that(Behaviour::Renews)
        .start(&fleet)
        .await;
    next.until("the lease", |m| {
        matches!(m, Message::ProposeAnswer(answer) if answer.accepted).then_some(())
    })
    .await;
    // The words of the holder before, from a session of its host, with its old token and fence.
    for (fence, token) in [(1, "former".to_owned()), (1, next.token.clone())] {
        let finish = rpc::Finish {
            operation_id: operation_id.clone(),
            fence,
            outcome: rpc::Outcome::Done.into(),
            message: "too late".into(),
            process_token: token,
        };
        next.send(session_request::Message::Finish(finish)).await;
    }
    // A later word of the same session is answered, so that those before it have been judged.
    let log = hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest {
        name: "hv1".into(),
        lock_for_seconds: 2,
        log_message: "still mine".into(),
        proposing_peer_token: next.token.clone(),
        ..Default::default()
    };
    let propose = rpc::Propose {
        request_id: 77,
        operation_id,
        proposal: Some(log),
        fence: 0,
        newest_fence: 0,
    };
    next.send(session_request::Message::Propose(propose)).await;
    next.until("the answer", |m| {
        matches!(m, Message::ProposeAnswer(answer) if answer.request_id == 77).then_some(())
    })
    .await;
    assert_eq!(fleet.history().await[0].state(), OperationState::Active);
    next.behave(Behaviour::Completes);
    let said = collect(stream).await.unwrap();
    assert_eq!(
        said.last().unwrap(),
        &(OperationState::Completed, "done".to_owned())
    );
}

#[tokio::test]
async fn a_host_that_has_seen_newer_fences_than_the_store_gets_one_above_them() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"])
        .that(Behaviour::Ignores)
        .start(&fleet)
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let (_, _stream) = fleet.creating("hv1").await;
    let operation_id = fleet.history().await.remove(0).id;
    for (request_id, newest_fence, granted) in [(1, u64::MAX, None), (2, 41, Some(42))] {
        let proposal = hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest {
            name: "hv1".into(),
            lock_for_seconds: 60,
            proposing_peer_token: agent.token.clone(),
            ..Default::default()
        };
        let propose = rpc::Propose {
            request_id,
            operation_id: operation_id.clone(),
            proposal: Some(proposal),
            fence: 0,
            newest_fence,
        };
        agent.send(session_request::Message::Propose(propose)).await;
        let answer = agent
            .until("the answer", |m| match m {
                Message::ProposeAnswer(answer) if answer.request_id == request_id => Some(answer.clone()),
                _ => None,
            })
            .await;
        assert_eq!(
            answer.accepted.then_some(answer.fence),
            granted,
            "{}",
            answer.reason
        );
    }
    assert_eq!(fleet.history().await[0].fence, 42);
}

#[tokio::test]
async fn a_hello_that_lies_or_speaks_another_protocol_is_refused_in_words() {
    let fleet = Fleet::start().await;
    let mut liar = Setup::of("h1", &["hv1"]);
    liar.hello_host = "h2".into();
    let reason = liar.start(&fleet).await.until("the refusal", refusal).await;
    assert!(reason.contains("\"h2\"") && reason.contains("\"h1\""), "{reason}");
    let mut old = Setup::of("h1", &["hv1"]);
    old.protocol = 0;
    let reason = old.start(&fleet).await.until("the refusal", refusal).await;
    assert!(reason.contains("protocol 0"), "{reason}");
    assert!(fleet.list().await.is_empty());
}

#[tokio::test]
async fn journaled_operations_that_are_over_are_named_in_the_welcome() {
    let fleet = Fleet::start().await;
    let first = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    fleet.create("hv1").await.unwrap();
    let ended = fleet.history().await.remove(0).id;
    first.kill();
    let mut next = Setup::of("h1", &["hv1"]);
    next.journaled = vec![ended.clone(), "nonsense".into()];
    let next = next.start(&fleet).await;
    let welcome = next
        .until("the welcome", |m| match m {
            Message::Welcome(welcome) => Some(welcome.clone()),
            _ => None,
        })
        .await;
    assert_eq!(welcome.ended_operation_ids, [ended, "nonsense".into()]);
}

#[tokio::test]
async fn clients_cannot_open_sessions_and_agents_cannot_call_the_rest() {
    let fleet = Fleet::start().await;
    for path in ["client/admin/test", "client/viewer/test"] {
        let mut client = AgentServiceClient::new(fleet.channel(path));
        let denied = client.session(tokio_stream::empty()).await.unwrap_err();
        assert_eq!(denied.code(), tonic::Code::PermissionDenied, "{path}");
    }
    let channel = fleet.channel("agent/h1");
    let mut operations =
        hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient::new(channel);
    let denied = operations
        .list_hypervisors(hostler_common::rpc::operations::v1::ListHypervisorsRequest {})
        .await;
    assert_eq!(denied.unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn an_end_that_is_said_again_is_confirmed_again() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    fleet.create("hv1").await.unwrap();
    let operation = fleet.history().await.remove(0);
    for (outcome, accepted) in [(rpc::Outcome::Done, true), (rpc::Outcome::Failed, false)] {
        let before = agent.count(|m| matches!(m, Message::FinishAnswer(_)));
        let finish = rpc::Finish {
            operation_id: operation.id.clone(),
            fence: operation.fence,
            outcome: outcome.into(),
            message: "done".into(),
            process_token: agent.token.clone(),
        };
        agent.send(session_request::Message::Finish(finish)).await;
        let answers = |m: &Message| match m {
            Message::FinishAnswer(answer) => Some(answer.accepted),
            _ => None,
        };
        let answer =
            hostler_tests::wait::until("the answer", || async { agent.all(answers).get(before).copied() })
                .await;
        assert_eq!(answer, accepted, "{outcome:?}");
    }
}

#[tokio::test]
async fn what_an_agent_says_is_bounded_and_cleaned() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let gpu = rpc::Gpu {
        brand: "x".repeat(100_000),
        model: "a\u{1b}[31mb".into(),
        ..Default::default()
    };
    let inventory = rpc::Inventory {
        cpu_threads: 9,
        gpus: vec![gpu; 3],
        ..Default::default()
    };
    agent.report(inventory).await;
    hostler_tests::wait::until("the report", || async {
        (fleet.list().await[0].cpu == 9).then_some(())
    })
    .await;
    let gpus = fleet.list().await.remove(0).gpus;
    assert!(
        gpus.len() == 3 && gpus[0].brand.len() < 100,
        "{} bytes",
        gpus[0].brand.len()
    );
    assert_eq!(gpus[0].model, "a[31mb");
}

#[tokio::test]
async fn a_host_has_a_bounded_number_of_hypervisors() {
    let fleet = Fleet::start().await;
    let ids: Vec<String> = (0..300).map(|n| format!("hv{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let agent = Setup::of("h1", &ids).start(&fleet).await;
    let refused = agent
        .until("the refusal", |m| match m {
            Message::ReportAnswer(answer) => Some(answer.refused.len()),
            _ => None,
        })
        .await;
    assert_eq!(refused, 44);
    fleet
        .until_state("hv255", HypervisorState::AvailableToCreate)
        .await;
    assert_eq!(fleet.list().await.len(), 256);
}
