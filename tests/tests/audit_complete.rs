//! The audit log leaves nothing out: every rpc that changes something by each of its ends, every try to enrol.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::rpc::hostler::enrol::v1::EnrolRequest;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_coordinator::api::authz::TABLE;
use hostler_coordinator::audit::table::changes;
use hostler_pki::{ChannelOptions, EnrolToken, KeyRequest, connect_to_enrol};
use hostler_tests::fleet::Fleet;
use hostler_tests::newcomer::make_token;
use hostler_tests::raw::send;
use serde_json::Value;
use tonic::{Code, Status};

async fn noted(fleet: &Fleet, request: site::ListAuditRequest) -> Vec<Value> {
    let answer = fleet.site("admin").list_audit(request).await;
    let mut stream = answer.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        all.extend(
            part.lines
                .iter()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()),
        );
    }
    all
}

async fn all(fleet: &Fleet) -> Vec<Value> {
    noted(fleet, site::ListAuditRequest::default()).await
}

#[tokio::test]
async fn every_rpc_that_changes_something_is_noted_whether_it_is_refused_or_answered() {
    let fleet = Fleet::start().await;
    let changing: Vec<_> = TABLE
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| changes(path))
        .collect();
    assert!(changing.len() > 15, "{changing:?}");
    for path in &changing {
        for role in ["viewer", "admin"] {
            let channel = fleet.channel(&format!("client/{role}/test"));
            // An empty request: it is refused by the role, or answered that it is none, or that there is no such thing.
            let answer = send(channel, path, Vec::new()).await;
            if role == "viewer" {
                assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied, "{path}");
            }
        }
    }
    let all = all(&fleet).await;
    for path in changing {
        let of = |role: &str| {
            let identity = format!("spiffe://fleet.test/client/{role}/test");
            let lines = all
                .iter()
                .filter(|line| line["rpc"] == path && line["identity"] == identity.as_str());
            lines.count()
        };
        assert_eq!((of("viewer"), of("admin")), (1, 1), "{path}");
    }
}

async fn tries(fleet: &Fleet, word: &str, request: &KeyRequest) -> Result<(), Status> {
    tries_with(fleet, word, request.csr_der().to_vec()).await
}

async fn tries_with(fleet: &Fleet, word: &str, csr_der: Vec<u8>) -> Result<(), Status> {
    let known = EnrolToken::parse(&make_token(fleet, "any").await).unwrap();
    let channel = connect_to_enrol(&fleet.enrol_at(), known.ca(), ChannelOptions::default())
        .await
        .unwrap();
    let request = EnrolRequest {
        token: word.to_owned(),
        csr_der,
        agent_version: String::new(),
    };
    EnrolServiceClient::new(channel).enrol(request).await.map(drop)
}

#[tokio::test]
async fn every_try_to_enrol_is_noted_with_its_token_its_host_and_its_end_and_never_with_the_secret() {
    let fleet = Fleet::start().await;
    let (first, second) = (make_token(&fleet, "h1").await, make_token(&fleet, "h2").await);
    let ids = [&first, &second].map(|word| EnrolToken::parse(word).unwrap().id().to_string());
    let own = KeyRequest::new().unwrap();
    tries(&fleet, &first, &own).await.unwrap();
    tries(&fleet, &first, &KeyRequest::new().unwrap())
        .await
        .unwrap_err();
    tries_with(&fleet, &second, vec![0; 100]).await.unwrap_err();
    let request = site::RevokeTokenRequest { id: ids[1].clone() };
    fleet.site("admin").revoke_token(request).await.unwrap();
    tries(&fleet, &second, &own).await.unwrap_err();
    tries(&fleet, "hostler1-nonsense", &own).await.unwrap_err();
    let all = all(&fleet).await;
    let told: Vec<_> = all.iter().filter(|line| line["event"] == "enrolment").collect();
    let expected = [
        ("OK", &*ids[0], "for h1: certificate until"),
        ("PERMISSION_DENIED", &*ids[0], "for h1: token"),
        (
            "INVALID_ARGUMENT",
            &*ids[1],
            "for h2: the certificate request is refused",
        ),
        ("PERMISSION_DENIED", &*ids[1], "was revoked at"),
        ("PERMISSION_DENIED", "", "the token has"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (line, (code, id, words)) in told.iter().zip(expected) {
        let message = line["message"].as_str().unwrap();
        assert_eq!(line["code"], code, "{line}");
        assert!(message.contains(id) && message.contains(words), "{line}");
        assert!(
            line["address"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
    }
    let text = std::fs::read_to_string(fleet.data_dir().join("audit/audit.jsonl")).unwrap();
    for word in [&first, &second] {
        let secret = &word["hostler1-".len() + 13..][..40];
        assert!(!text.contains(secret) && !text.contains(&secret.to_uppercase()));
    }
}

#[tokio::test]
async fn what_is_asked_for_between_two_moments_is_what_was_between_them() {
    let fleet = Fleet::start().await;
    let lose = |host: &'static str| {
        let mut client = fleet.site("admin");
        async move {
            let request = site::LoseAgentRequest {
                host: host.to_owned(),
                reason: "scrapped".to_owned(),
            };
            client.lose_agent(request).await.unwrap_err()
        }
    };
    lose("first").await;
    let all_before = all(&fleet).await;
    let at = time_of(&all_before[0]);
    let until = |until| site::ListAuditRequest {
        until: Some(until),
        ..Default::default()
    };
    assert!(noted(&fleet, until(at)).await.is_empty());
    let later = prost_types::Timestamp {
        seconds: at.seconds + 3600,
        nanos: 0,
    };
    assert_eq!(noted(&fleet, until(later)).await.len(), 1);
    let both = site::ListAuditRequest {
        follow: true,
        ..until(later)
    };
    let status = fleet.site("admin").list_audit(both).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// When a line was written, by the second: before it happened.
fn time_of(line: &Value) -> prost_types::Timestamp {
    let time = line["time"].as_str().unwrap();
    let mut at: prost_types::Timestamp = time.parse().unwrap();
    at.nanos = 0;
    at
}
