//! The one port: who reaches an rpc, what answers without a call, and what survives.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::rpc::hostler::fleet::v1::WatchHypervisorsRequest;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::units::UnixMillis;
use hostler_pki::ca::{Authority, IssueOptions};
use hostler_pki::issued::Existing;
use hostler_pki::{ChannelOptions, Credentials, TlsFiles};
use hostler_tests::fleet::Fleet;
use hostler_tests::raw::send;
use hostler_tests::shown::answered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A client of `fleet` whose certificate has 3 s to live: long enough to be seen working, short enough to be
/// waited for.
fn short_lived(fleet: &Fleet) -> (Credentials, Arc<rustls::ClientConfig>) {
    let dir = tempfile::TempDir::new().unwrap();
    let authority = Authority::open(fleet.ca.files("client/viewer/test").ca.parent().unwrap()).unwrap();
    let identity = "spiffe://fleet.test/client/admin/late".parse().unwrap();
    let options = IssueOptions {
        lifetime: Duration::from_secs(3),
        ..IssueOptions::default()
    };
    let written = authority
        .issue(&identity, &options)
        .unwrap()
        .write(dir.path(), "late", Existing::Keep)
        .unwrap();
    let files = TlsFiles {
        ca: fleet.ca.files("client/viewer/test").ca,
        certificate: written.certificate,
        key: written.key,
    };
    let credentials = Credentials::load(&files).unwrap();
    let config = hostler_pki::client_config(&credentials).unwrap();
    (credentials, config)
}

#[tokio::test]
async fn an_expired_certificate_does_not_reach_the_server() {
    let fleet = Fleet::start().await;
    let (_, config) = short_lived(&fleet);
    assert!(
        answered(fleet.address, config.clone()).await > 0,
        "it works while it lives"
    );
    hostler_tests::wait::until("the certificate expires", || async {
        (answered(fleet.address, config.clone()).await == 0).then_some(())
    })
    .await;
    assert!(answered(fleet.address, fleet.ca.client_config("client/viewer/test")).await > 0);
}

#[tokio::test]
async fn a_connection_ends_when_its_certificate_expires() {
    let fleet = Fleet::start().await;
    let (credentials, config) = short_lived(&fleet);
    let address = fleet.address.to_string().parse().unwrap();
    let channel = hostler_pki::connect(&address, config, ChannelOptions::default())
        .await
        .unwrap();
    let watch = |channel| async {
        let mut client = FleetServiceClient::new(channel);
        let mut stream = client
            .watch_hypervisors(WatchHypervisorsRequest {})
            .await
            .unwrap()
            .into_inner();
        // The mark that all have been sent; nothing follows in a fleet without hosts.
        stream.message().await.unwrap().unwrap();
        stream
    };
    let mut dying = watch(channel).await;
    let mut living = watch(fleet.channel("client/viewer/test")).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), dying.message()).await;
    let status = ended
        .expect("the connection outlives its certificate")
        .unwrap_err();
    assert!(
        hostler_pki::explain(&status).is_some(),
        "the connection broke: {status:?}"
    );
    assert!(UnixMillis::now() >= credentials.not_after(), "it broke too early");
    let others = tokio::time::timeout(Duration::from_millis(100), living.message()).await;
    assert!(others.is_err(), "another connection ended too: {others:?}");
}

#[tokio::test]
async fn plaintext_and_nonsense_are_dropped_and_the_coordinator_goes_on() {
    let fleet = Fleet::start().await;
    for nonsense in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 4096],
        b"",
    ] {
        let mut tcp = TcpStream::connect(fleet.address).await.unwrap();
        tcp.write_all(nonsense).await.unwrap();
        tcp.shutdown().await.unwrap();
        // Either an alert or nothing, then the end.
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
        assert!(rest.len() < 16, "{rest:?}");
    }
    assert!(fleet.list().await.is_empty());
}

#[tokio::test]
async fn health_answers_under_every_name_that_clients_use() {
    let fleet = Fleet::start().await;
    let mut health = HealthClient::new(fleet.channel("client/viewer/test"));
    for service in [
        "",
        "operations.v1.OperationsService",
        "hostler.fleet.v1.FleetService",
        "hostler.site.v1.SiteService",
        "hostler.certificates",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let unknown = health
        .check(HealthCheckRequest { service: "x".into() })
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn reflection_answers_in_both_of_its_versions() {
    let fleet = Fleet::start().await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // ServerReflectionRequest { list_services: "" }
        let list_services = vec![0x3a, 0];
        send(fleet.channel("client/viewer/test"), &path, list_services)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn pings_without_calls_are_answered_on_one_connection() {
    let fleet = Fleet::start().await;
    let credentials = fleet.ca.client_config("client/viewer/test");
    let tcp = TcpStream::connect(fleet.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut tls = TlsConnector::from(credentials).connect(name, tcp).await.unwrap();
    // The preface, empty settings, then nothing but pings (RFC 9113, 6.7): clients send one each 5 s, servers of
    // other implementations end the connection after two without a call.
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    for _ in 0..100 {
        tls.write_all(b"\0\0\x08\x06\0\0\0\0\0hostlers").await.unwrap();
        loop {
            let mut header = [0; 9];
            tls.read_exact(&mut header).await.unwrap();
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let mut payload = vec![0; length];
            tls.read_exact(&mut payload).await.unwrap();
            assert_ne!(header[3], 7, "GOAWAY");
            if (header[3], header[4], payload.as_slice()) == (6, 1, b"hostlers") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn many_silent_connections_do_not_keep_others_out() {
    let fleet = Fleet::start().await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(fleet.address).await.unwrap());
    }
    assert!(fleet.list().await.is_empty());
}
