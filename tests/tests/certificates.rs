//! Certificates that are no good, at the coordinator's ports and at those who call it: each is refused inside the handshake,
//! in words that say which and what to do, and everybody goes on.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hostler_agent::blocking::Blocking;
use hostler_agent::session::dial::{self, Trouble};
use hostler_common::rpc::hostler::agent::v1::SessionRequest;
use hostler_common::rpc::hostler::agent::v1::agent_service_client::AgentServiceClient;
use hostler_common::rpc::hostler::site::v1::RevokeIdentityRequest;
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_pki::{ChannelOptions, CoordinatorAddress};
use hostler_tests::fleet::Fleet;
use hostler_tests::pki::TestCa;
use hostler_tests::programs::command;
use hostler_tests::shown::{Shown, answered, careless};
use hostler_tests::wait;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::ServerConfig;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::Code;

fn over(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

fn early(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2900, 1, 1);
}

fn serving(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

/// Another site's CA, of the same trust domain.
fn foreign() -> (TestCa, TempDir) {
    let dir = TempDir::new().unwrap();
    (TestCa::make(dir.path()), dir)
}

/// What the audit log says of handshakes, once there are so many lines of them.
async fn refusals(fleet: &Fleet, count: usize) -> Vec<Value> {
    let path = fleet.data_dir().join("audit/audit.jsonl");
    wait::until("every refusal is in the audit log", || async {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let of_handshakes: Vec<Value> = lines
            .filter(|line: &Value| line["event"] == "handshake")
            .collect();
        (of_handshakes.len() >= count).then_some(of_handshakes)
    })
    .await
}

/// Another implementation, which speaks TLS 1.2 as well: what it prints.
#[allow(clippy::disallowed_methods)] // The test asks another implementation; the product starts no program here.
async fn openssl(address: SocketAddr, arguments: &[&str]) -> String {
    let mut client = tokio::process::Command::new("openssl");
    let running = client
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(wait::PATIENCE, running).await;
    let output = ended.expect("openssl ends").expect("openssl is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

async fn revoke(fleet: &Fleet, path: &str) {
    // It was here before, as whoever is revoked.
    let mut leaver = OperationsServiceClient::new(fleet.channel(path));
    leaver
        .list_hypervisors(rpc::ListHypervisorsRequest {})
        .await
        .unwrap();
    let request = RevokeIdentityRequest {
        subject: path.to_owned(),
        reason: "left".to_owned(),
        ..RevokeIdentityRequest::default()
    };
    fleet.site("admin").revoke_identity(request).await.unwrap();
}

#[tokio::test]
async fn a_caller_without_a_good_certificate_is_refused_before_it_is_read_and_is_in_the_audit_log() {
    let fleet = Fleet::start().await;
    let (ca, (foreign, _dir)) = (&fleet.ca, foreign());
    let good = ca.shown("client/viewer/test");
    assert!(
        answered(fleet.address, careless(Some(&good))).await > 0,
        "the probe works"
    );
    revoke(&fleet, "client/viewer/leaver").await;
    let forged = |paths: &[&str]| ca.forged(paths, |_| {});
    let cases = [
        (None, "the peer showed no certificate", ""),
        (
            Some(foreign.shown("agent/h1")),
            "not signed by the CA that is trusted here; by its own word it is that of spiffe://fleet.test/agent/h1",
            "",
        ),
        (
            Some(ca.forged(&["agent/h1"], over)),
            "it expired at 2020-01-01",
            "",
        ),
        (
            Some(ca.forged(&["agent/h1"], early)),
            "it is not valid before 2900-01-01",
            "",
        ),
        (
            Some(ca.shown("client/viewer/leaver")),
            "was revoked at",
            "client/viewer/leaver",
        ),
        (
            Some(ca.shown("client/admin/test").with_key_of(&good)),
            "it was shown without its key; a copy of a certificate alone is of no use; by its own word",
            "",
        ),
        (
            Some(ca.shown("coordinator/c1")),
            "it was not issued to call as an agent or client",
            "",
        ),
        (
            Some(forged(&["coordinator/c2"])),
            "is not one to call as an agent or client",
            "coordinator/c2",
        ),
        (Some(forged(&[])), "it holds no valid identity", ""),
        (
            Some(forged(&["client/admin/a", "client/admin/b"])),
            "it holds no valid identity",
            "",
        ),
        (
            Some(forged(&["spiffe://other.test/client/admin/a"])),
            "is not of the trust domain fleet.test",
            "spiffe://other.test/client/admin/a",
        ),
    ];
    for (shown, why, _) in &cases {
        assert_eq!(
            answered(fleet.address, careless(shown.as_ref())).await,
            0,
            "{why}"
        );
    }
    let files = ca.files("client/viewer/test");
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let old = openssl(fleet.address, &["-tls1_2", "-cert", certificate, "-key", key]).await;
    assert!(old.contains("alert protocol version"), "{old}");

    let noted = refusals(&fleet, cases.len() + 1).await;
    assert_eq!(noted.len(), cases.len() + 1, "{noted:?}");
    let older = [(None, "the peer does not speak TLS 1.3", "")];
    for (line, (_, why, identity)) in noted.iter().zip(cases.iter().chain(&older)) {
        assert!(line["message"].as_str().unwrap().contains(why), "{why}: {line}");
        let named = match identity.is_empty() || identity.contains("://") {
            true => (*identity).to_owned(),
            false => format!("spiffe://fleet.test/{identity}"),
        };
        assert_eq!(line["identity"], named, "{why}: {line}");
        assert_eq!(line["code"], "UNAUTHENTICATED");
        assert!(
            line["address"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
    }
    assert!(
        answered(fleet.address, careless(Some(&good))).await > 0,
        "it goes on"
    );
}

#[tokio::test]
async fn the_port_for_enrolment_takes_no_older_tls_and_serves_no_agent_with_a_certificate() {
    let fleet = Fleet::start().await;
    let port = fleet.enrol_address.unwrap();
    let old = openssl(port, &["-tls1_2"]).await;
    assert!(old.contains("alert protocol version"), "{old}");
    let noted = &refusals(&fleet, 1).await[0];
    let said = noted["message"].as_str().unwrap();
    assert!(
        said.contains("the port for enrolment") && said.contains("does not speak TLS 1.3"),
        "{noted}"
    );
    // It asks for no certificate, and whoever shows one is nobody there.
    let address: CoordinatorAddress = fleet.enrol_at();
    let agent = fleet.ca.client_config("agent/h1");
    let channel = hostler_pki::channel(&address, agent, ChannelOptions::default());
    let session = AgentServiceClient::new(channel.clone())
        .session(tokio_stream::iter([SessionRequest::default()]))
        .await;
    assert_eq!(session.unwrap_err().code(), Code::Unimplemented);
    let listed = OperationsServiceClient::new(channel)
        .list_hypervisors(rpc::ListHypervisorsRequest {})
        .await;
    assert_eq!(listed.unwrap_err().code(), Code::Unimplemented);
}

/// Somebody who listens where a coordinator should, and counts who would have talked to it.
async fn stranger(config: Arc<ServerConfig>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let met = Arc::new(Mutex::new(Vec::new()));
    let (acceptor, meets) = (TlsAcceptor::from(config), met.clone());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let word = match acceptor.accept(tcp).await {
                Ok(_) => "a handshake was done".to_owned(),
                Err(error) => error.to_string(),
            };
            meets.lock().unwrap().push(word);
        }
    });
    (address, met)
}

/// What somebody shows who is not the coordinator, and what is said about it: which, and what to do.
fn strangers(ca: &TestCa, foreign: &TestCa) -> Vec<(Shown, [&'static str; 2])> {
    let forged = |paths: &[&str], change: fn(&mut CertificateParams)| {
        ca.forged(paths, |params| {
            serving(params);
            change(params);
        })
    };
    let coordinator = ca.shown("coordinator/c1");
    vec![
        (
            forged(&["coordinator/c1"], over),
            ["it expired at 2020-01-01", "hostler-pki issue coordinator"],
        ),
        (
            forged(&["coordinator/c1"], early),
            ["it is not valid before 2900-01-01", "compare the clocks"],
        ),
        (
            foreign.shown("coordinator/c1"),
            ["not signed by the CA that is trusted here", "that ca is its CA"],
        ),
        (
            ca.shown("client/admin/test"),
            ["was not issued to serve as a coordinator", "check the address"],
        ),
        (
            forged(&["agent/h1"], |_| {}),
            ["is not one to serve as a coordinator", "check the address"],
        ),
        (
            forged(&["spiffe://other.test/coordinator/c1"], |_| {}),
            ["is not of the trust domain fleet.test", "of another site"],
        ),
        (
            coordinator.with_key_of(&ca.shown("client/admin/test")),
            ["it was shown without its key", "check who has that address"],
        ),
    ]
}

#[tokio::test]
async fn an_agent_and_hostler_refuse_who_is_not_their_coordinator_and_say_why_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let (ca, (foreign, _dir)) = (TestCa::make(dir.path()), foreign());
    let (agent, client) = (ca.files("agent/h1"), ca.files("client/viewer/test"));
    for (shown, says) in strangers(&ca, &foreign) {
        let (address, met) = stranger(shown.server()).await;
        let at: CoordinatorAddress = address.to_string().parse().unwrap();
        let dial = dial::over_tls(at, agent.clone(), Blocking::new(1));
        let of_agent = match dial(SessionRequest::default()).await.map(|_| ()) {
            Err(Trouble::Person(line)) => line,
            other => panic!("{says:?}: {other:?}"),
        };
        let mut hostler = tokio::process::Command::from(command("hostler"));
        let ended = hostler
            .env("HOSTLER_COORDINATOR", address.to_string())
            .env("HOSTLER_CA", &client.ca)
            .env("HOSTLER_CERT", &client.certificate)
            .env("HOSTLER_KEY", &client.key)
            .arg("status")
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(wait::PATIENCE, ended)
            .await
            .unwrap()
            .unwrap();
        assert!(!ended.status.success(), "{says:?}");
        let of_hostler = String::from_utf8_lossy(&ended.stderr).into_owned();
        for (who, line) in [("agent", of_agent), ("hostler", of_hostler)] {
            for part in says {
                assert!(line.contains(part), "{who}: {part}: {line}");
            }
        }
        let met = met.lock().unwrap();
        assert!(!met.is_empty(), "{says:?}");
        assert!(
            met.iter().all(|word| word.contains("alert")),
            "{says:?}: somebody talked to a stranger: {met:?}"
        );
    }
}
