//! Who is revoked is cut off before the command returns, stays out, and comes back only with a newer certificate.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::sync::atomic::{AtomicI32, Ordering};

use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::session_request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::fleet::v1::WatchHypervisorsRequest;
use hostler_common::rpc::hostler::site::v1 as site;
use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_pki::ChannelOptions;
use hostler_tests::agent::{Setup, SimulatedAgent};
use hostler_tests::enrolled::{self, enrol};
use hostler_tests::fleet::Fleet;
use tempfile::TempDir;
use tonic::{Code, Status};

async fn revoke(fleet: &Fleet, subject: &str, reason: &str) -> Result<site::RevokeIdentityResponse, Status> {
    let request = site::RevokeIdentityRequest {
        subject: subject.to_owned(),
        reason: reason.to_owned(),
        unknown: false,
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
    let channel = enrolled::channel(&fleet, "h1").await;
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

#[tokio::test]
async fn a_name_that_nobody_has_is_refused_with_those_that_are_like_it_unless_it_is_meant() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("host-17", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let request = site::CreateTokenRequest {
        host: "host-18".to_owned(),
        expires_seconds: 0,
    };
    fleet.site("admin").create_token(request).await.unwrap();
    for (subject, words) in [
        (
            "agent/host-1",
            "no host is known here by the name host-1; names like it: host-17, host-18. Nothing was revoked",
        ),
        (
            "client/admin/tset",
            "no client is known here by the name admin/tset; names like it: admin/test. Nothing was revoked",
        ),
        (
            "agent/quite-another",
            "by the name quite-another. Nothing was revoked; with --unknown it is",
        ),
    ] {
        let status = revoke(&fleet, subject, "stolen").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    let list = site::ListRevocationsRequest {};
    let list = fleet.site("viewer").list_revocations(list).await.unwrap();
    assert_eq!(list.into_inner().revocations, []);

    revoke(&fleet, "agent/host-18", "its token leaked").await.unwrap();
    agent.kill();
    revoke(&fleet, "agent/host-17", "stolen while it was off")
        .await
        .unwrap();
    let meant = site::RevokeIdentityRequest {
        subject: "agent/made-by-hand".to_owned(),
        reason: "lost on a train".to_owned(),
        unknown: true,
    };
    fleet.site("admin").revoke_identity(meant).await.unwrap();
    assert!(
        turned_away(&fleet, "agent/made-by-hand")
            .await
            .contains("revoked")
    );
    revoke(&fleet, "agent/made-by-hand", "once more").await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_certificate_is_known_while_its_host_is_away_also_after_a_restart() {
    let mut fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let listed = async |fleet: &Fleet| {
        let request = site::ListAgentsRequest {};
        let answer = fleet.site("viewer").list_agents(request).await.unwrap();
        let agent = answer.into_inner().agents.remove(0);
        (agent.connected, agent.certificate_not_after)
    };
    let (connected, ends) = listed(&fleet).await;
    assert!(connected && ends.is_some());
    agent.kill();
    hostler_tests::wait::until("h1 is away", || async { (!listed(&fleet).await.0).then_some(()) }).await;
    assert_eq!(listed(&fleet).await, (false, ends));
    fleet.restart().await;
    assert_eq!(listed(&fleet).await, (false, ends));
}

#[tokio::test]
async fn a_store_that_is_put_back_from_a_copy_lets_in_nobody_who_was_revoked_or_enrolled_since() {
    let mut fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let request = site::CreateTokenRequest {
        host: "h2".to_owned(),
        expires_seconds: 0,
    };
    let made = fleet.site("admin").create_token(request).await.unwrap();
    let token = made.into_inner().token;
    let dir = TempDir::new().unwrap();
    let copy = dir.path().join("copy.db");
    fleet.save_store(&copy);
    enrol(&fleet, &token).await.unwrap();
    revoke(&fleet, "agent/h1", "stolen").await.unwrap();
    agent.until_ended().await;

    let accepted = fleet.restore_store(&copy).await;
    assert_eq!(accepted.tokens_closed, 1);
    assert_eq!(accepted.revoked, ["spiffe://fleet.test/agent/h1"]);
    assert!(turned_away(&fleet, "agent/h1").await.contains("revoked"));
    let again = enrol(&fleet, &token).await.unwrap_err();
    assert!(
        again.message().contains("by hostler-coordinator --accept-loss"),
        "{again}"
    );
    fleet.restart().await;
    let list = site::ListRevocationsRequest {};
    let list = fleet.site("viewer").list_revocations(list).await.unwrap();
    assert_eq!(list.into_inner().revocations.len(), 1, "it is told once");
}
