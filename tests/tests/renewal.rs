//! Certificates that end and are followed by others, with lives of seconds: over a session, and the coordinator's own.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::path::Path;
use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1 as rpc;
use hostler_common::rpc::hostler::agent::v1::session_request;
use hostler_common::rpc::hostler::agent::v1::session_response::Message;
use hostler_common::rpc::hostler::site::v1::GetStatusRequest;
use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_common::units::UnixMillis;
use hostler_coordinator::api::health::CERTIFICATES;
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use hostler_pki::{ChannelOptions, Credentials, KeyRequest, TlsFiles, TrustBundle};
use hostler_tests::agent::{Setup, SimulatedAgent};
use hostler_tests::fleet::Fleet;
use hostler_tests::wait;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// An agent whose certificate lives so long, and when it ends.
async fn short_lived(fleet: &Fleet, host: &str, life: Duration) -> (SimulatedAgent, UnixMillis) {
    let dir = TempDir::new().unwrap();
    let ca = fleet.tls_files().ca;
    let authority = Authority::open(ca.parent().unwrap()).unwrap();
    let identity = format!("spiffe://fleet.test/agent/{host}").parse().unwrap();
    let options = IssueOptions {
        lifetime: life,
        ..IssueOptions::default()
    };
    let issued = authority.issue(&identity, &options).unwrap();
    let written = issued.write(dir.path(), host, Existing::Keep).unwrap();
    let credentials = Credentials::load(&TlsFiles {
        ca,
        certificate: written.certificate,
        key: written.key,
    })
    .unwrap();
    let address = fleet.address.to_string().parse().unwrap();
    let config = hostler_pki::client_config(&credentials).unwrap();
    let channel = hostler_pki::connect(&address, config, ChannelOptions::default())
        .await
        .unwrap();
    let hypervisor = format!("{host}-hv");
    let agent = SimulatedAgent::over(Setup::of(host, &[&hypervisor]), channel).await;
    agent
        .until("the welcome", |m| matches!(m, Message::Welcome(_)).then_some(()))
        .await;
    (agent, credentials.not_after())
}

async fn renew(agent: &SimulatedAgent, request_id: u64, csr_der: Vec<u8>) -> rpc::RenewAnswer {
    let renew = rpc::Renew { request_id, csr_der };
    agent.send(session_request::Message::Renew(renew)).await;
    let answer = agent.until("the answer", |message| match message {
        Message::RenewAnswer(answer) if answer.request_id == request_id => Some(answer.clone()),
        _ => None,
    });
    answer.await
}

#[tokio::test]
async fn a_session_outlives_its_first_certificate_when_it_got_another() {
    let fleet = Fleet::start().await;
    let life = Duration::from_secs(5);
    let (renewed, end) = short_lived(&fleet, "h1", life).await;
    let (other, _) = short_lived(&fleet, "h2", life).await;
    let request = KeyRequest::new().unwrap();
    let answer = renew(&renewed, 7, request.csr_der().to_vec()).await;
    assert_eq!(answer.reason, "");
    let issued = request.complete(&answer.certificate_pem).unwrap();
    assert_eq!(issued.identity.to_string(), "spiffe://fleet.test/agent/h1");
    assert!(issued.not_after > end.plus(Duration::from_secs(3600)));
    other.until_ended().await;
    let beyond = end.plus(Duration::from_secs(2));
    wait::until("the first certificate is over", || async {
        (UnixMillis::now() > beyond).then_some(())
    })
    .await;
    // It is heard yet: what it reports counts.
    renewed
        .report(rpc::Inventory {
            memory_mb: 4242,
            ..Default::default()
        })
        .await;
    wait::until("the report counts", || async {
        fleet
            .list()
            .await
            .iter()
            .any(|listed| listed.id == "h1-hv" && listed.ram == 4242)
            .then_some(())
    })
    .await;
    assert_eq!(
        fleet.state("h1-hv").await,
        Some(HypervisorState::AvailableToCreate)
    );
    assert_eq!(fleet.state("h2-hv").await, Some(HypervisorState::Unknown));
}

#[tokio::test]
async fn a_renewal_that_is_refused_says_why_and_the_session_goes_on() {
    let fleet = Fleet::start().await;
    let (agent, _) = short_lived(&fleet, "h1", Duration::from_secs(3600)).await;
    let answer = renew(&agent, 1, b"nonsense".to_vec()).await;
    assert!(
        answer.certificate_pem.is_empty() && answer.reason.contains("certificate signing request"),
        "{answer:?}"
    );
    let request = KeyRequest::new().unwrap();
    let mut refused = None;
    for number in 2..40 {
        let answer = renew(&agent, number, request.csr_der().to_vec()).await;
        if answer.certificate_pem.is_empty() {
            refused = Some(answer.reason);
            break;
        }
    }
    assert!(refused.unwrap().contains("ask again in"));

    let fleet = Fleet::start_with(|config| config.enrolment = None).await;
    let (agent, _) = short_lived(&fleet, "h1", Duration::from_secs(3600)).await;
    let answer = renew(&agent, 1, request.csr_der().to_vec()).await;
    assert!(answer.reason.contains("[enrolment]"), "{}", answer.reason);
}

/// The certificate that the port shows.
async fn shown(fleet: &Fleet) -> Vec<u8> {
    let tcp = TcpStream::connect(fleet.address).await.unwrap();
    let connector = TlsConnector::from(fleet.ca.client_config("client/viewer/test"));
    let tls = connector
        .connect("localhost".try_into().unwrap(), tcp)
        .await
        .unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn put_another(files: &TlsFiles, authority: &Authority) {
    let dir = TempDir::new().unwrap();
    let identity = "spiffe://fleet.test/coordinator/c1".parse().unwrap();
    let issued = authority.issue(&identity, &IssueOptions::default()).unwrap();
    let written = issued.write(dir.path(), "c1", Existing::Keep).unwrap();
    put(&written.key, &files.key);
    put(&written.certificate, &files.certificate);
}

fn put(from: &Path, to: &Path) {
    let part = to.with_extension("part");
    std::fs::copy(from, &part).unwrap();
    std::fs::rename(part, to).unwrap();
}

#[tokio::test]
async fn the_coordinators_own_certificate_is_replaced_without_dropping_anybody() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    fleet.until_state("hv1", HypervisorState::AvailableToCreate).await;
    let before = shown(&fleet).await;
    let files = fleet.tls_files();
    let authority = Authority::open(files.ca.parent().unwrap()).unwrap();
    let kept = std::fs::read(&files.key).unwrap();
    put_another(&files, &authority);
    wait::until("the new certificate is shown", || async {
        (shown(&fleet).await != before).then_some(())
    })
    .await;
    let after = shown(&fleet).await;
    std::fs::write(&files.key, kept).unwrap();
    for _ in 0..10 {
        assert_eq!(shown(&fleet).await, after, "what does not fit is not taken");
    }
    assert_eq!(
        agent.count(|message| matches!(message, Message::Welcome(_))),
        1,
        "one session all the time"
    );
    assert_eq!(fleet.state("hv1").await, Some(HypervisorState::AvailableToCreate));
}

#[tokio::test]
async fn agents_are_told_of_the_cas_that_are_trusted_at_their_welcome_and_when_they_change() {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &["hv1"]).start(&fleet).await;
    let welcomed = agent.until("the welcome", |message| match message {
        Message::Welcome(welcome) => Some(welcome.ca_pem.clone()),
        _ => None,
    });
    let welcomed = TrustBundle::parse(&welcomed.await).unwrap();
    assert_eq!(welcomed.roots().len(), 1);
    // A second root, as in a rotation.
    let next = TempDir::new().unwrap();
    let domain = "fleet.test".parse().unwrap();
    Authority::init(next.path(), domain, DEFAULT_CA_LIFETIME).unwrap();
    let ca = fleet.tls_files().ca;
    let both =
        std::fs::read_to_string(&ca).unwrap() + &std::fs::read_to_string(next.path().join("ca.crt")).unwrap();
    let whole = next.path().join("both.crt");
    std::fs::write(&whole, both).unwrap();
    std::fs::copy(&whole, ca.with_extension("part")).unwrap();
    std::fs::rename(ca.with_extension("part"), &ca).unwrap();
    let told = agent.until("it is told", |message| match message {
        Message::Trust(trust) => Some(trust.ca_pem.clone()),
        _ => None,
    });
    let told = TrustBundle::parse(&told.await).unwrap();
    assert_eq!(told.roots().len(), 2);
    assert!(told.contains(welcomed.roots()[0]));
}

#[tokio::test]
async fn the_status_tells_which_ca_signs_and_when_the_certificates_end() {
    let fleet = Fleet::start().await;
    let status = || async {
        let answer = fleet.site("viewer").get_status(GetStatusRequest {}).await;
        answer.unwrap().into_inner()
    };
    let channel = fleet.channel("client/viewer/monitor");
    let health = |service: &str| {
        let mut health = HealthClient::new(channel.clone());
        let service = service.to_owned();
        async move {
            let answer = health.check(HealthCheckRequest { service }).await;
            answer.unwrap().into_inner().status()
        }
    };
    let before = status().await;
    assert_eq!(health(CERTIFICATES).await, ServingStatus::Serving);
    assert_eq!(before.cas.len(), 1);
    assert!(before.cas[0].signs);
    assert_eq!(before.warnings, Vec::<String>::new());
    // A certificate in its last third, and fewer than 30 days left.
    let files = fleet.tls_files();
    let authority = Authority::open(files.ca.parent().unwrap()).unwrap();
    let (dir, identity) = (
        TempDir::new().unwrap(),
        "spiffe://fleet.test/coordinator/c1".parse().unwrap(),
    );
    let options = IssueOptions {
        lifetime: Duration::from_secs(60),
        ..IssueOptions::default()
    };
    let issued = authority.issue(&identity, &options).unwrap();
    let written = issued.write(dir.path(), "c1", Existing::Keep).unwrap();
    put(&written.key, &files.key);
    put(&written.certificate, &files.certificate);
    let warned = wait::until("it warns", || async {
        let status = status().await;
        (!status.warnings.is_empty()).then_some(status)
    })
    .await;
    let warning = &warned.warnings[0];
    assert!(
        warning.contains("certificate of this coordinator ends at")
            && warning.contains("hostler-pki issue coordinator c1"),
        "{warning}"
    );
    assert_ne!(warned.certificate_not_after, before.certificate_not_after);
    wait::until("health tells of it", || async {
        (health(CERTIFICATES).await == ServingStatus::NotServing).then_some(())
    })
    .await;
    assert_eq!(health("").await, ServingStatus::Serving, "calls are answered");
}
