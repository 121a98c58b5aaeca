//! The audit log: every change and every refusal, with who it was, without a secret.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::os::unix::fs::PermissionsExt as _;

use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::fleet::v1::ProposeOperationRequest;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use hostler_tests::agent::Setup;
use hostler_tests::fleet::Fleet;
use hostler_tests::wait;
use serde_json::Value;
use tonic::{Code, Status};

async fn lines(fleet: &Fleet, request: site::ListAuditRequest) -> Vec<Value> {
    let mut stream = fleet
        .site("admin")
        .list_audit(request)
        .await
        .unwrap()
        .into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        all.extend(part.lines);
    }
    all.iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn all(fleet: &Fleet) -> Vec<Value> {
    lines(fleet, site::ListAuditRequest::default()).await
}

/// The lines about an rpc.
async fn about(fleet: &Fleet, rpc: &str) -> Vec<Value> {
    let all = all(fleet).await.into_iter();
    all.filter(|line| {
        line["rpc"]
            .as_str()
            .is_some_and(|path| path.ends_with(&format!("/{rpc}")))
    })
    .collect()
}

async fn lose(fleet: &Fleet, role: &str, host: &str) -> Result<(), Status> {
    let request = site::LoseAgentRequest {
        host: host.to_owned(),
        reason: "scrapped".to_owned(),
    };
    fleet.site(role).lose_agent(request).await.map(drop)
}

fn proposal(token: &str, seconds: u32) -> ProposeOperationRequest {
    ProposeOperationRequest {
        proposal: Some(n0stack::ProposeOperationRequest {
            name: "hv1".to_owned(),
            lock_for_seconds: seconds,
            proposing_peer_token: token.to_owned(),
            ..Default::default()
        }),
        reason: "disk swap".to_owned(),
    }
}

#[tokio::test]
async fn a_change_is_noted_with_who_asked_for_what_and_what_it_made() {
    let fleet = Fleet::start().await;
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    fleet.create("hv1").await.unwrap();
    let operation = fleet.history().await[0].id.clone();
    let noted = about(&fleet, "CreateHypervisor").await;
    let [line] = &noted[..] else { panic!("{noted:?}") };
    assert_eq!(line["event"], "call");
    assert_eq!(line["identity"], "spiffe://fleet.test/client/operator/test");
    assert!(
        line["address"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
    assert_eq!(line["request"], serde_json::json!({"id": "hv1"}));
    assert_eq!(line["code"], "OK");
    assert_eq!(line["operations"], serde_json::json!([operation]));
    assert!(
        line["duration_ms"].is_u64() && line["time"].as_str().unwrap().ends_with('Z'),
        "{line}"
    );
    let refused = fleet.create("nothing").await.unwrap();
    assert_eq!(refused[0].0, OperationState::Failed);
    let noted = about(&fleet, "CreateHypervisor").await;
    assert_eq!(
        noted[1]["message"],
        format!("FAILED: {}", refused[0].1),
        "what is streamed is noted too: {noted:?}"
    );
    assert!(noted[1]["operations"].is_null(), "{noted:?}");
}

#[tokio::test]
async fn reads_are_not_noted_unless_they_are_refused() {
    let fleet = Fleet::start().await;
    fleet.list().await;
    fleet.history().await;
    let request = site::GetStatusRequest {};
    fleet.site("viewer").get_status(request).await.unwrap();
    assert!(all(&fleet).await.is_empty(), "{:?}", all(&fleet).await);
    let request = site::ListTokensRequest {};
    let refused = fleet.site("viewer").list_tokens(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let noted = about(&fleet, "ListTokens").await;
    assert_eq!(
        (noted.len(), &noted[0]["code"]),
        (1, &Value::from("PERMISSION_DENIED"))
    );
    assert_eq!(noted[0]["message"], refused.message());
}

#[tokio::test]
async fn refusals_are_noted_by_who_was_refused_and_can_be_looked_for() {
    let fleet = Fleet::start().await;
    lose(&fleet, "operator", "h1").await.unwrap_err();
    let unknown = lose(&fleet, "admin", "h1").await.unwrap_err();
    let noted = about(&fleet, "LoseAgent").await;
    let codes: Vec<_> = noted.iter().map(|line| line["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["PERMISSION_DENIED", "NOT_FOUND"]);
    assert_eq!(noted[1]["message"], unknown.message());
    assert_eq!(
        noted[1]["request"],
        serde_json::json!({"host": "h1", "reason": "scrapped"})
    );
    let of_operator = site::ListAuditRequest {
        identity: "client/operator".to_owned(),
        ..Default::default()
    };
    assert_eq!(lines(&fleet, of_operator).await.len(), 1);
    let newest = site::ListAuditRequest {
        at_most: 1,
        ..Default::default()
    };
    assert_eq!(lines(&fleet, newest).await, [noted[1].clone()]);
    let later = site::ListAuditRequest {
        since: Some(prost_types::Timestamp {
            seconds: 1 << 40,
            nanos: 0,
        }),
        ..Default::default()
    };
    assert!(lines(&fleet, later).await.is_empty());
    let by_viewer = fleet
        .site("operator")
        .list_audit(site::ListAuditRequest::default())
        .await;
    assert_eq!(by_viewer.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn no_secret_is_in_it_and_a_lock_that_is_renewed_is_noted_once() {
    let fleet = Fleet::start().await;
    let _agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let secret = "a-token-of-thirty-two-characters";
    for seconds in [60, 60, 60, 0] {
        let mut client = fleet.fleet("operator");
        client.propose_operation(proposal(secret, seconds)).await.unwrap();
    }
    let noted = about(&fleet, "ProposeOperation").await;
    let asked: Vec<_> = noted
        .iter()
        .map(|line| line["request"]["proposal"]["lock_for_seconds"].as_u64())
        .collect();
    assert_eq!(asked, [Some(60), None], "taken and given back: {noted:?}");
    let file = fleet.data_dir().join("audit/audit.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("disk swap") && !text.contains(secret), "{text}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_session_that_is_refused_is_noted() {
    let fleet = Fleet::start().await;
    let mut setup = Setup::of("h1", &["hv1"]);
    setup.hello_host = "h2".to_owned();
    let agent = setup.start(&fleet).await;
    let reason = agent
        .until("Refused", |message| match message {
            Message::Refused(refused) => Some(refused.reason.clone()),
            _ => None,
        })
        .await;
    let noted = all(&fleet).await;
    let session = noted.iter().find(|line| line["event"] == "session").unwrap();
    assert_eq!(
        (session["identity"].as_str(), session["message"].as_str()),
        (Some("agent/h1"), Some(reason.as_str()))
    );
}

#[tokio::test]
async fn a_handshake_with_a_revoked_certificate_is_noted_by_its_name() {
    let fleet = Fleet::start().await;
    let mut viewer = fleet.site("viewer");
    viewer.get_status(site::GetStatusRequest {}).await.unwrap();
    let request = site::RevokeIdentityRequest {
        subject: "client/viewer/test".to_owned(),
        reason: "left".to_owned(),
        unknown: false,
    };
    fleet.site("admin").revoke_identity(request).await.unwrap();
    let again = fleet.site("viewer").get_status(site::GetStatusRequest {}).await;
    again.unwrap_err();
    let noted = wait::until("the handshake is noted", || async {
        let all = all(&fleet).await;
        all.into_iter().find(|line| line["event"] == "handshake")
    })
    .await;
    assert_eq!(noted["identity"], "spiffe://fleet.test/client/viewer/test");
    assert_eq!(noted["code"], "UNAUTHENTICATED");
    assert!(noted["message"].as_str().unwrap().contains("revoked"), "{noted}");
    let revoked = about(&fleet, "RevokeIdentity").await;
    assert_eq!(
        revoked.last().unwrap()["request"]["subject"],
        "client/viewer/test"
    );
}

#[tokio::test]
async fn the_log_survives_restarts_and_a_storm_of_refusals_becomes_a_count() {
    let mut fleet = Fleet::start().await;
    lose(&fleet, "admin", "h1").await.unwrap_err();
    let storm = 200;
    let mut client = fleet.site("viewer");
    for _ in 0..storm {
        let request = site::ListTokensRequest {};
        client.list_tokens(request).await.unwrap_err();
    }
    drop(client);
    fleet.restart().await;
    let noted = all(&fleet).await;
    assert_eq!(noted[0]["code"], "NOT_FOUND");
    let refused = about(&fleet, "ListTokens").await.len();
    let held_back = noted.iter().filter_map(|line| line["held_back"].as_u64());
    let held_back: u64 = held_back.sum();
    assert!(refused < storm, "{refused}");
    assert_eq!(
        u64::try_from(refused).unwrap() + held_back,
        u64::try_from(storm).unwrap()
    );
}

#[tokio::test]
async fn who_follows_sees_what_happens_next() {
    let fleet = Fleet::start().await;
    lose(&fleet, "admin", "before").await.unwrap_err();
    let request = site::ListAuditRequest {
        follow: true,
        ..Default::default()
    };
    let mut stream = fleet
        .site("admin")
        .list_audit(request)
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.lines[0].contains("before"), "{first:?}");
    lose(&fleet, "admin", "after").await.unwrap_err();
    let next = stream.message().await.unwrap().unwrap();
    assert!(
        next.lines.len() == 1 && next.lines[0].contains("after"),
        "{next:?}"
    );
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing_and_the_status_says_so() {
    let fleet = Fleet::start_with(|config| {
        std::fs::create_dir_all(&config.data_dir).unwrap();
        std::fs::write(config.data_dir.join("audit"), "in the way").unwrap();
    })
    .await;
    let unknown = lose(&fleet, "admin", "h1").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    wait::until("the status warns", || async {
        let request = site::GetStatusRequest {};
        let status = fleet.site("viewer").get_status(request).await.unwrap();
        let warnings = status.into_inner().warnings;
        warnings
            .iter()
            .any(|warning| warning.contains("audit log cannot be written"))
            .then_some(())
    })
    .await;
}
