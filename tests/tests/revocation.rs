//! Who is revoked is cut off before the command returns, stays out, and comes back only with a newer certificate.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::sync::atomic::{AtomicI32, Ordering};

use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::session_request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::enrol::v1::EnrolRequest;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_common::rpc::hostler::fleet::v1::WatchHypervisorsRequest;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_pki::{ChannelOptions, Credentials, EnrolToken, KeyRequest, TlsFiles, TrustBundle};
use hostler_tests::agent::{Setup, SimulatedAgent};
use hostler_tests::fleet::Fleet;
use tempfile::TempDir;
use tonic::{Code, Status};

async fn revoke(fleet: &Fleet, subject: &str, reason: &str) -> Result<site::RevokeIdentityResponse, Status> {
    let request = site::RevokeIdentityRequest {
        subject: subject.to_owned(),
        reason: reason.to_owned(),
    };
    let answer = fleet.site("admin").revoke_identity(request).await?;
    Ok(answer.into_inner())
}

/// What the handshake says to who comes with the certificate for `path`.
async fn turned_away(fleet: &Fleet, path: &str) -> String {
    let address = fleet.address.to_string().parse().unwrap();
    let config = fleet.ca.client_config(path);
    let error = hostler_pki::connect(&address, config, ChannelOptions::default())
        .await
        .unwrap_err();
    hostler_common::error::Chain(&error).to_string()
}

fn inventory(memory_mb: u64) -> session_request::Message {
    let inventory = Some(rpc::Inventory {
        memory_mb,
        ..Default::default()
    });
    session_request::Message::Report(rpc::HostReport {
        inventory: inventory.clone(),
        hypervisors: vec![rpc::HypervisorReport {
            id: "hv1".to_owned(),
            kind: rpc::HypervisorKind::Host.into(),
            observed: rpc::Observed::OutOfService.into(),
            detail: String::new(),
            inventory,
        }],
        pools: Vec::new(),
    })
}

#[tokio::test]
async fn nothing_that_a_revoked_agent_says_counts_once_the_command_has_returned() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let last_heard = AtomicI32::new(0);
    let talking = async {
        // Further ahead, and HTTP/2 takes it for an attack and ends the connection by itself.
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(1));
        let mut said = 20_000;
        loop {
            pace.tick().await;
            if said < last_heard.load(Ordering::Relaxed).max(20_000) + 200 {
                said += 1;
                if !agent.try_send(inventory(said.unsigned_abs().into())).await {
                    break std::future::pending::<()>().await;
                }
            }
        }
    };
    let revoking = async {
        let ram = || async {
            let ram = fleet.list().await[0].ram;
            last_heard.store(ram, Ordering::Relaxed);
            ram
        };
        let heard = ram().await;
        hostler_tests::wait::until("it is heard", || async {
            (ram().await > heard.max(20_000)).then_some(())
        })
        .await;
        let revoked = revoke(&fleet, "agent/h1", "stolen").await.unwrap();
        let last = ram().await;
        assert_eq!(revoked.connections_ended, 1);
        for _ in 0..50 {
            assert_eq!(ram().await, last, "it was heard after the command had returned");
        }
        assert_eq!(fleet.state("hv1").await, Some(HypervisorState::Unknown));
        last
    };
    tokio::select! {
        biased;
        last = revoking => assert!(last > 20_000),
        () = talking => {}
    }
    agent.until_ended().await;
}

#[tokio::test]
async fn a_revoked_agent_stays_out_over_restarts_and_comes_back_with_a_new_token() {
    let mut fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let revoked = revoke(&fleet, "agent/h1", "stolen").await.unwrap();
    agent.until_ended().await;
    let revocation = revoked.revocation.unwrap();
    assert_eq!(
        (&*revocation.subject, &*revocation.reason, &*revocation.revoked_by),
        ("agent/h1", "stolen", "spiffe://fleet.test/client/admin/test")
    );
    let said = turned_away(&fleet, "agent/h1").await;
    assert!(said.contains("revoked"), "{said}");
    fleet.restart().await;
    let said = turned_away(&fleet, "agent/h1").await;
    assert!(said.contains("revoked"), "{said}");
    let list = fleet
        .site("viewer")
        .list_revocations(site::ListRevocationsRequest {})
        .await
        .unwrap();
    assert_eq!(list.into_inner().revocations, [revocation]);

    // Revoked again, and enrolled at once: the certificate is newer all the same.
    revoke(&fleet, "agent/h1", "once more").await.unwrap();
    let request = site::CreateTokenRequest {
        host: "h1".to_owned(),
        expires_seconds: 0,
    };
    let made = fleet
        .site("admin")
        .create_token(request)
        .await
        .unwrap()
        .into_inner();
    let token = EnrolToken::parse(&made.token).unwrap();
    let key = KeyRequest::new().unwrap();
    let channel = hostler_pki::connect_to_enrol(&fleet.enrol_at(), token.ca(), ChannelOptions::default())
        .await
        .unwrap();
    let request = EnrolRequest {
        token: made.token,
        csr_der: key.csr_der().to_vec(),
        agent_version: String::new(),
    };
    let answer = EnrolServiceClient::new(channel)
        .enrol(request)
        .await
        .unwrap()
        .into_inner();
    let dir = TempDir::new().unwrap();
    let (ca, identity) = (dir.path().join("ca.crt"), dir.path().join("agent.pem"));
    TrustBundle::parse(&answer.ca_pem).unwrap().write(&ca).unwrap();
    let issued = key.complete(&answer.certificate_pem).unwrap();
    issued.write_one_file(&identity).unwrap();
    let files = TlsFiles {
        ca,
        certificate: identity.clone(),
        key: identity,
    };
    let config = hostler_pki::client_config(&Credentials::load(&files).unwrap()).unwrap();
    let address = fleet.address.to_string().parse().unwrap();
    let channel = hostler_pki::channel(&address, config, ChannelOptions::default());
    let agent = SimulatedAgent::over(Setup::of("h1", &["hv1"]), channel).await;
    agent
        .until("the welcome", |m| matches!(m, Message::Welcome(_)).then_some(()))
        .await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    assert!(
        turned_away(&fleet, "agent/h1").await.contains("revoked"),
        "the old one"
    );
}

#[tokio::test]
async fn a_client_is_cut_off_in_the_middle_of_what_it_follows() {
    let fleet = Fleet::start().await;
    let mut watching = fleet
        .fleet("operator")
        .watch_hypervisors(WatchHypervisorsRequest {})
        .await
        .unwrap()
        .into_inner();
    watching.message().await.unwrap().unwrap();
    let revoked = revoke(&fleet, "client/operator/test", "left the team")
        .await
        .unwrap();
    assert_eq!(revoked.connections_ended, 1);
    let ended = loop {
        match watching.message().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(ended.is_err(), "{ended:?}");
    assert!(
        turned_away(&fleet, "client/operator/test")
            .await
            .contains("revoked")
    );
    let others = fleet
        .fleet("viewer")
        .watch_hypervisors(WatchHypervisorsRequest {})
        .await;
    assert!(others.is_ok(), "others of that name or role are not concerned");
}

#[tokio::test]
async fn nobody_revokes_himself_or_a_coordinator_or_without_a_reason() {
    let fleet = Fleet::start().await;
    for (subject, reason, code, words) in [
        (
            "client/admin/test",
            "oops",
            Code::FailedPrecondition,
            "your own certificate",
        ),
        ("coordinator/c1", "oops", Code::FailedPrecondition, "rotate-ca"),
        ("agent/h1", " ", Code::InvalidArgument, "say why"),
        ("agent/../h1", "x", Code::InvalidArgument, "agent/HOST"),
        ("client/king/a", "x", Code::InvalidArgument, "agent/HOST"),
        ("", "x", Code::InvalidArgument, "agent/HOST"),
    ] {
        let status = revoke(&fleet, subject, reason).await.unwrap_err();
        assert_eq!(status.code(), code, "{subject}");
        assert!(status.message().contains(words), "{status}");
    }
    let list = fleet
        .site("viewer")
        .list_revocations(site::ListRevocationsRequest {})
        .await;
    assert_eq!(list.unwrap().into_inner().revocations, []);
    assert!(fleet.list().await.is_empty(), "and all are served as before");
}
