//! Who gets through a handshake, and who fails inside it, before a byte of theirs is read.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::io;
use std::sync::Arc;

use hostler_pki::refusal::about_certificate;
use hostler_pki::{
    Revocations, TlsFiles, client_config, explain_failed_handshake, peer_identity, server_config,
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use support::{ADMIN, AGENT, COORDINATOR, DAY, DEADLINE, Fleet, openssl, words};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What came of one connection: what the server says, and what the client read.
struct Met {
    server: Result<String, io::Error>,
    client: Result<Vec<u8>, io::Error>,
}

/// Connects the two in memory. The server answers with the identity it saw; the client sends at once.
async fn meet(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Met {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let identity = peer_identity(stream.get_ref().1).unwrap().to_string();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        stream.write_all(identity.as_bytes()).await?;
        stream.shutdown().await?;
        Ok(identity)
    };
    let calling = async {
        let name = ServerName::try_from("some.other.name").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"hello").await?;
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await?;
        Ok(read)
    };
    let both = async { tokio::join!(serving, calling) };
    let (server, client) = tokio::time::timeout(DEADLINE, both)
        .await
        .expect("the handshake hangs");
    Met { server, client }
}

/// A caller that shows whatever it is given and trusts anybody.
fn careless(files: Option<&TlsFiles>) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAnybody));
    let mut config = match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
            let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// The alert that a peer sent.
fn alert(error: &io::Error) -> rustls::AlertDescription {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("no alert but {other:?} ({error})"),
    }
}

#[tokio::test]
async fn agents_and_clients_get_through_and_are_known() {
    let fleet = Fleet::new();
    let server = server_config(&fleet.credentials(COORDINATOR), Revocations::none()).unwrap();
    for who in [AGENT, ADMIN, "spiffe://example.org/client/viewer/eve"] {
        let client = client_config(&fleet.credentials(who)).unwrap();
        let met = meet(Arc::clone(&server), client).await;
        assert_eq!(met.server.unwrap(), who);
        assert_eq!(met.client.unwrap(), who.as_bytes());
    }
}

#[tokio::test]
async fn a_caller_without_a_valid_identity_fails_in_the_handshake_and_is_told_why() {
    let fleet = Fleet::new();
    let server = server_config(&fleet.credentials(COORDINATOR), Revocations::none()).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let other_domain = "spiffe://other.org/agent/node-1";
    let foreign = Fleet::new();
    let cases = [
        ("no certificate", None, "none was shown"),
        (
            "a foreign CA",
            Some(foreign.issue(AGENT)),
            "not signed by the coordinator's CA",
        ),
        (
            "expired",
            Some(fleet.forge("expired", &[AGENT], |p| p.not_after = now - DAY / 2)),
            "expired",
        ),
        (
            "early",
            Some(fleet.forge("early", &[AGENT], |p| p.not_before = now + DAY / 2)),
            "not valid yet",
        ),
        ("no URI", Some(fleet.forge("no-uri", &[], |_| {})), "no identity"),
        (
            "two URIs",
            Some(fleet.forge("two", &[AGENT, ADMIN], |_| {})),
            "no identity",
        ),
        (
            "one URI twice",
            Some(fleet.forge("twice", &[AGENT, AGENT], |_| {})),
            "no identity",
        ),
        (
            "an odd URI",
            Some(fleet.forge("odd", &["spiffe://example.org/root"], |_| {})),
            "no identity",
        ),
        (
            "another trust domain",
            Some(fleet.forge("other", &[other_domain], |_| {})),
            "no identity",
        ),
        (
            "a coordinator",
            Some(fleet.issue(COORDINATOR)),
            "not issued to call",
        ),
        (
            "a coordinator with clientAuth",
            Some(fleet.forge("c-client", &[COORDINATOR], |_| {})),
            "no identity",
        ),
        (
            "an agent with serverAuth",
            Some(fleet.forge("a-server", &[AGENT], |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
            "not issued to call",
        ),
    ];
    for (case, files, says) in cases {
        let met = meet(Arc::clone(&server), careless(files.as_ref())).await;
        let refusal = met.server.expect_err(case);
        let told = met.client.expect_err(case);
        let told = about_certificate(alert(&told)).unwrap_or_else(|| panic!("{case}: no words for {told}"));
        assert!(told.contains(says), "{case}: told {told}; server: {refusal}");
    }
    // What the server's own log says, with the identity when there is one.
    let other = fleet.forge("other", &[other_domain], |_| {});
    for (files, says) in [
        (None, "showed no certificate"),
        (
            Some(foreign.issue(AGENT)),
            "not accepted: it is not signed by the CA that is trusted here",
        ),
        (
            Some(other),
            "spiffe://other.org/agent/node-1 is not of the trust domain example.org",
        ),
    ] {
        let met = meet(Arc::clone(&server), careless(files.as_ref())).await;
        let logged = explain_failed_handshake(&met.server.unwrap_err());
        assert!(logged.contains(says), "{logged}");
    }
    // And the server goes on.
    let client = client_config(&fleet.credentials(AGENT)).unwrap();
    assert_eq!(meet(server, client).await.server.unwrap(), AGENT);
}

#[tokio::test]
async fn a_caller_refuses_whoever_is_not_its_coordinator() {
    let fleet = Fleet::new();
    let client = client_config(&fleet.credentials(ADMIN)).unwrap();
    let foreign = Fleet::new();
    let other_domain = Fleet::of_domain("other.org");
    let now = time::OffsetDateTime::now_utc();
    let serve =
        |p: &mut rcgen::CertificateParams| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cases = [
        ("an agent", fleet.issue(AGENT), "InvalidPurpose"),
        (
            "an agent with serverAuth",
            fleet.forge("a", &[AGENT], serve),
            "is not one to serve",
        ),
        ("a foreign CA", foreign.issue(COORDINATOR), "UnknownIssuer"),
        (
            "another fleet",
            other_domain.issue("spiffe://other.org/coordinator/c1"),
            "UnknownIssuer",
        ),
        (
            "another trust domain",
            fleet.forge("b", &["spiffe://other.org/coordinator/c1"], serve),
            "not of the trust domain example.org",
        ),
        (
            "an expired coordinator",
            fleet.forge("c", &[COORDINATOR], |p| {
                serve(p);
                p.not_after = now - DAY / 2;
            }),
            "xpired",
        ),
        (
            "a nameless server",
            fleet.forge("d", &[], serve),
            "no valid identity",
        ),
    ];
    for (case, files, says) in cases {
        let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<Vec<_>, _>>().unwrap(), key)
            .unwrap();
        let met = meet(Arc::new(server), Arc::clone(&client)).await;
        let error = met.client.expect_err(case);
        let inner = error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
        let said = format!(
            "{inner:?} {}",
            words(&hostler_pki::verify::VerifyError::from_rustls(
                inner.clone(),
                hostler_pki::verify::Usage::Server,
            ))
        );
        assert!(said.contains(says), "{case}: {said}");
        met.server.expect_err(case);
    }
}

#[tokio::test]
async fn no_session_is_resumed() {
    let fleet = Fleet::new();
    let server = server_config(&fleet.credentials(COORDINATOR), Revocations::none()).unwrap();
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.session_storage.can_cache());
    assert!(!server.ticketer.enabled());
}

/// openssl as the caller: rustls is built without TLS 1.2, so it cannot ask for it.
async fn openssl_calls(
    server: Arc<ServerConfig>,
    version: &'static str,
    files: &TlsFiles,
) -> (io::Result<String>, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let files = files.clone();
    let (told, said) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let (ca, certificate, key) = (path(&files.ca), path(&files.certificate), path(&files.key));
        let arguments = [
            "s_client",
            version,
            "-alpn",
            "h2",
            "-connect",
            &address,
            "-CAfile",
            &ca,
            "-cert",
            &certificate,
            "-key",
            &key,
        ];
        let (_, text) = openssl(&arguments);
        told.send(text)
    });
    let accepted = async {
        let (tcp, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(server).accept(tcp).await?;
        let identity = peer_identity(stream.get_ref().1).unwrap().to_string();
        stream.shutdown().await?;
        Ok(identity)
    };
    let server = tokio::time::timeout(DEADLINE, accepted)
        .await
        .expect("the handshake hangs");
    let said = tokio::time::timeout(DEADLINE, said)
        .await
        .expect("openssl hangs")
        .unwrap();
    (server, said)
}

#[tokio::test]
async fn tls_1_2_is_refused_and_another_implementation_of_1_3_is_not() {
    let fleet = Fleet::new();
    let server = server_config(&fleet.credentials(COORDINATOR), Revocations::none()).unwrap();
    let files = fleet.issue(AGENT);
    let (result, said) = openssl_calls(Arc::clone(&server), "-tls1_2", &files).await;
    result.expect_err("TLS 1.2 was accepted");
    assert!(said.contains("protocol version"), "{said}");
    let (result, said) = openssl_calls(server, "-tls1_3", &files).await;
    assert_eq!(result.unwrap(), AGENT, "{said}");
    assert!(said.contains("Verification: OK"), "{said}");
}

#[derive(Debug)]
struct TrustsAnybody;

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
