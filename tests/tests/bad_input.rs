//! Each bad input of a client gets a clear answer that names the thing, and the coordinator goes on.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1::session_response;
use hostler_common::rpc::hostler::fleet::v1 as fleet_rpc;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::{CreateHypervisorRequest, HypervisorState, OperationState};
use hostler_tests::agent::Setup;
use hostler_tests::fleet::Fleet;
use hostler_tests::raw::send;
use tonic::Code;

#[tokio::test]
async fn ill_formed_ids_are_invalid_arguments_that_name_the_id() {
    let fleet = Fleet::start().await;
    let long = "x".repeat(5000);
    for (id, word) in [
        ("", "empty"),
        ("../etc", "../etc"),
        ("a b", "a b"),
        ("-x", "-x"),
        ("a\0b", "a\\0b"),
        (&long, "5000 bytes"),
    ] {
        for status in [
            fleet.create(id).await.unwrap_err(),
            fleet.destroy(id).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::InvalidArgument, "{id:?}");
            assert!(status.message().contains(word), "{id:?}: {}", status.message());
        }
        let status = fleet.create_all(&["fine", id]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert!(fleet.history().await.is_empty());
}

#[tokio::test]
async fn an_id_that_is_not_enrolled_is_a_streamed_failure() {
    let fleet = Fleet::start().await;
    for said in [
        fleet.create("nobody").await.unwrap(),
        fleet.destroy("nobody").await.unwrap(),
    ] {
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].0, OperationState::Failed);
        assert!(said[0].1.contains("nobody is not enrolled"), "{said:?}");
    }
    let request = fleet_rpc::GetHypervisorRequest { id: "nobody".into() };
    let status = fleet.fleet("viewer").get_hypervisor(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn bulk_lists_that_make_no_sense_are_refused_whole() {
    let fleet = Fleet::start().await;
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let empty = fleet.create_all(&[]).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    assert!(empty.message().contains("ids is empty"), "{}", empty.message());
    let twice = fleet.create_all(&["hv1", "hv1"]).await.unwrap_err();
    assert_eq!(twice.code(), Code::InvalidArgument);
    assert!(
        twice.message().contains("hv1 is given twice"),
        "{}",
        twice.message()
    );
    assert!(fleet.history().await.is_empty(), "nothing of them was begun");
}

#[tokio::test]
async fn a_thousand_ids_are_served_known_or_not() {
    // A thousand at once take their time where others work too: none of it is an agent that died.
    let fleet = Fleet::start_with(|config| {
        config.sessions.heartbeat = Duration::from_secs(10);
        config.operations.lease = Duration::from_secs(60);
    })
    .await;
    let ids: Vec<String> = (0..1000).map(|n| format!("hv{n:04}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let unknown = fleet.create_all(&ids).await.unwrap();
    let last = unknown.last().unwrap();
    assert_eq!(last.0, OperationState::Failed);
    assert!(
        last.1.contains("1000 of 1000 failed") && last.1.len() < 2000,
        "{}",
        last.1
    );
    let mut agents = Vec::new();
    for (number, ids) in ids.chunks(250).enumerate() {
        agents.push(Setup::of(&format!("h{number}"), ids).start(&fleet).await);
        fleet
            .until_state(ids[ids.len() - 1], HypervisorState::AvailableToCreate)
            .await;
    }
    let said = fleet.create_all(&ids).await.unwrap();
    assert_eq!(
        said.last().unwrap().0,
        OperationState::Completed,
        "{:?}",
        said.last()
    );
    assert_eq!(fleet.list().await.len(), 1000);
}

#[tokio::test]
async fn malformed_and_huge_messages_are_refused_and_the_coordinator_goes_on() {
    let fleet = Fleet::start().await;
    let create = "/operations.v1.OperationsService/CreateHypervisor";
    let malformed = send(fleet.channel("client/operator/test"), create, vec![0xff; 20])
        .await
        .unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument, "{malformed:?}");
    assert!(
        malformed.message().contains("malformed"),
        "{}",
        malformed.message()
    );
    let not_text = send(
        fleet.channel("client/operator/test"),
        create,
        vec![0x0a, 0x02, 0xff, 0xfe],
    )
    .await
    .unwrap_err();
    assert_eq!(not_text.code(), Code::InvalidArgument, "{not_text:?}");
    let huge = send(
        fleet.channel("client/operator/test"),
        create,
        vec![0x0a; 100 << 20],
    )
    .await
    .unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange, "{huge:?}");
    assert!(huge.message().contains("104857600 bytes"), "{}", huge.message());
    let nowhere = send(
        fleet.channel("client/operator/test"),
        "/operations.v1.OperationsService/Reboot",
        vec![],
    )
    .await
    .unwrap_err();
    assert_eq!(nowhere.code(), Code::Unimplemented);
    assert!(fleet.list().await.is_empty(), "it still serves");
}

#[tokio::test]
async fn pages_and_ids_of_operations_are_checked() {
    let fleet = Fleet::start().await;
    let mut viewer = fleet.fleet("viewer");
    let list = |page_size, page_token: &str| fleet_rpc::ListOperationsRequest {
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        viewer.list_operations(list(1001, "")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        viewer.list_operations(list(1, "x")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let get = |id: &str| fleet_rpc::GetOperationRequest { id: id.to_owned() };
    assert_eq!(
        viewer.get_operation(get("")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let unknown = viewer
        .get_operation(get("01900000-0000-7000-8000-000000000000"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn a_reason_travels_with_the_operation_without_control_characters() {
    let fleet = Fleet::start().await;
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let mut request = tonic::Request::new(CreateHypervisorRequest { id: "hv1".into() });
    let reason = tonic::metadata::MetadataValue::from_bytes("mañana\u{1b}[31m".as_bytes());
    request.metadata_mut().insert_bin("hostler-reason-bin", reason);
    let mut stream = fleet
        .operations("operator")
        .create_hypervisor(request)
        .await
        .unwrap()
        .into_inner();
    while stream.message().await.unwrap().is_some() {}
    let operation = fleet.history().await.remove(0);
    assert_eq!(operation.reason, "mañana[31m");
    assert_eq!(operation.requested_by, "spiffe://fleet.test/client/operator/test");
}

/// Names that a path, an option, a line of a log or a reader could take for something else.
fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "/",
        "a/b",
        "/etc/passwd",
        "..",
        "../x",
        "a..b",
        ".hidden",
        "-x",
        "--help",
        "a\0",
        "a\nb",
        "a\r",
        "\u{1b}[31m",
        " ",
        "a b",
        "$(reboot)",
        "`reboot`",
        ";reboot",
        "%s",
        "é",
        "\u{202e}x",
        "*",
        "~",
        "\\",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(1 << 20));
    names.push("../".repeat(1 << 18));
    names
}

/// INVALID_ARGUMENT in one short line.
fn assert_refused(what: &str, name: &str, status: &tonic::Status) {
    let shown: String = name.chars().take(20).collect();
    assert_eq!(
        status.code(),
        Code::InvalidArgument,
        "{what} {shown:?}: {status:?}"
    );
    let message = status.message();
    assert!(message.len() < 1024, "{what} {shown:?}: {} bytes", message.len());
    assert!(
        !message.contains(char::is_control),
        "{what} {shown:?}: {message:?}"
    );
}

#[tokio::test]
async fn every_rpc_that_takes_a_name_refuses_those_that_mean_something_else() {
    let fleet = Fleet::start().await;
    let mut admin = fleet.fleet("admin");
    for name in hostile_names() {
        for status in [
            fleet.create(&name).await.unwrap_err(),
            fleet.destroy(&name).await.unwrap_err(),
            fleet.create_all(&["fine", &name]).await.unwrap_err(),
        ] {
            assert_refused("an id", &name, &status);
        }
        let id = name.clone();
        let status = admin.get_hypervisor(fleet_rpc::GetHypervisorRequest { id }).await;
        assert_refused("a hypervisor", &name, &status.unwrap_err());
        let id = name.clone();
        let status = admin.get_operation(fleet_rpc::GetOperationRequest { id }).await;
        assert_refused("an operation", &name, &status.unwrap_err());
        let resource = name.clone();
        let list = fleet_rpc::ListOperationsRequest {
            resource,
            ..Default::default()
        };
        assert_refused(
            "a resource",
            &name,
            &admin.list_operations(list).await.unwrap_err(),
        );
        let token = |name: &str, token: &str| fleet_rpc::ProposeOperationRequest {
            proposal: Some(n0stack::ProposeOperationRequest {
                name: name.to_owned(),
                lock_for_seconds: 60,
                proposing_peer_token: token.to_owned(),
                ..Default::default()
            }),
            reason: "why".to_owned(),
        };
        for proposal in [token(&name, "token"), token("hv1", &name)] {
            let status = admin.propose_operation(proposal).await.unwrap_err();
            assert_refused("a proposal", &name, &status);
        }
        let pool = name.clone();
        let status = admin.list_backups(fleet_rpc::ListBackupsRequest { pool }).await;
        assert_refused("a pool", &name, &status.unwrap_err());
        let pool = name.clone();
        let expand = fleet_rpc::ExpandStorageRequest {
            pool,
            min_bytes: 1,
            dry_run: false,
        };
        assert_refused("a pool", &name, &admin.expand_storage(expand).await.unwrap_err());
        let id = name.clone();
        let delete = fleet_rpc::DeleteBackupRequest {
            id,
            ..Default::default()
        };
        assert_refused("a backup", &name, &admin.delete_backup(delete).await.unwrap_err());
        let restore = fleet_rpc::RestoreBackupRequest {
            id: "latest".to_owned(),
            target: format!("/srv/../{name}"),
            ..Default::default()
        };
        assert_refused(
            "a target",
            &name,
            &admin.restore_backup(restore).await.unwrap_err(),
        );
    }
    assert!(fleet.history().await.is_empty(), "nothing of it was begun");
    assert!(fleet.list().await.is_empty(), "it still serves");
}

#[tokio::test]
async fn hostile_names_in_a_report_are_refused_one_by_one_and_the_others_are_taken() {
    let fleet = Fleet::start().await;
    let names = hostile_names();
    let mut reported: Vec<&str> = names.iter().map(String::as_str).collect();
    reported.push("hv1");
    let agent = Setup::of("h1", &reported).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let refused = agent
        .until("the refusals", |message| match message {
            session_response::Message::ReportAnswer(answer) => Some(answer.refused.clone()),
            _ => None,
        })
        .await;
    assert_eq!(refused.len(), names.len());
    for refused in refused {
        assert!(
            refused.id.len() < 256 && refused.reason.len() < 1024,
            "{refused:?}"
        );
        assert!(!refused.reason.contains(char::is_control), "{refused:?}");
    }
    assert_eq!(fleet.list().await.len(), 1);
}

#[tokio::test]
async fn words_of_a_megabyte_are_cut_or_refused() {
    let fleet = Fleet::start().await;
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let mut operator = fleet.fleet("operator");
    let long = "x".repeat(1 << 20);
    let lock = |log_message: &str, reason: &str| fleet_rpc::ProposeOperationRequest {
        proposal: Some(n0stack::ProposeOperationRequest {
            name: "hv1".to_owned(),
            lock_for_seconds: 60,
            proposing_peer_token: "token".to_owned(),
            log_message: log_message.to_owned(),
            ..Default::default()
        }),
        reason: reason.to_owned(),
    };
    let status = operator.propose_operation(lock(&long, "why")).await.unwrap_err();
    assert_refused("a log message", &long, &status);
    let held = operator
        .propose_operation(lock("", &long))
        .await
        .unwrap()
        .into_inner();
    let held = held.operation.unwrap();
    assert_eq!(held.reason.len(), 500);
    let cancel = fleet_rpc::CancelOperationRequest {
        id: held.id,
        reason: long.clone(),
    };
    let cancelled = operator.cancel_operation(cancel).await.unwrap().into_inner();
    let said = cancelled.operation.unwrap().message;
    assert!(said.len() < 4096, "{} bytes", said.len());
}
