//! What a host asks for beside its key: of a request only the key counts, and what is no such request uses up no token.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::process::Command;

use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_common::rpc::hostler::enrol::v1::{EnrolRequest, EnrolResponse};
use hostler_pki::{ChannelOptions, EnrolToken, connect_to_enrol};
use hostler_tests::fleet::Fleet;
use hostler_tests::newcomer::make_token;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm};
use tonic::{Code, Status};

const RSA: &str = "req -new -newkey rsa:2048 -noenc -keyout /dev/null -outform DER -subj /CN=h1";

async fn trade(fleet: &Fleet, word: &str, csr_der: Vec<u8>) -> Result<EnrolResponse, Status> {
    let token = EnrolToken::parse(word).unwrap();
    let channel = connect_to_enrol(&fleet.enrol_at(), token.ca(), ChannelOptions::default())
        .await
        .unwrap();
    let request = EnrolRequest {
        token: word.to_owned(),
        csr_der,
        agent_version: "9.9.9\n\u{1b}[2J".repeat(50),
    };
    Ok(EnrolServiceClient::new(channel)
        .enrol(request)
        .await?
        .into_inner())
}

#[allow(clippy::disallowed_methods)] // Tests start programs where they need them.
fn openssl(arguments: &str) -> Vec<u8> {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Asks to be a CA, another host, a coordinator and an admin.
fn greedy() -> Vec<u8> {
    openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout /dev/null -outform DER -subj /CN=h2 \
         -addext basicConstraints=critical,CA:TRUE -addext extendedKeyUsage=serverAuth \
         -addext subjectAltName=DNS:coordinator.fleet.test,URI:spiffe://fleet.test/agent/h2,\
         URI:spiffe://fleet.test/coordinator/c1,URI:spiffe://fleet.test/client/admin/ada",
    )
}

fn of_kind(kind: &'static SignatureAlgorithm) -> Vec<u8> {
    let key = KeyPair::generate_for(kind).unwrap();
    CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec()
}

#[tokio::test]
async fn whatever_a_request_asks_for_the_certificate_is_for_the_tokens_host_and_for_nothing_else() {
    let fleet = Fleet::start().await;
    let word = make_token(&fleet, "h1").await;
    let answer = trade(&fleet, &word, greedy()).await.unwrap();
    assert_eq!(answer.host, "h1");
    let shown = shown(&answer.certificate_pem);
    assert!(shown.contains("URI:spiffe://fleet.test/agent/h1\n"), "{shown}");
    for asked in ["h2", "coordinator", "admin", "CA:TRUE", "Server Authentication"] {
        assert!(!shown.contains(asked), "{asked}: {shown}");
    }
}

/// As openssl reads it.
fn shown(certificate_pem: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate_pem).unwrap();
    let text = openssl(&format!("x509 -noout -text -in {}", file.path().display()));
    let text = String::from_utf8(text).unwrap();
    // The issuer's name is the CA's own.
    let lines = text.lines().filter(|line| !line.contains("Issuer:"));
    lines.map(|line| format!("{}\n", line.trim())).collect()
}

#[tokio::test]
async fn keys_of_other_kinds_and_what_is_no_request_are_refused_in_words_and_use_up_no_token() {
    let fleet = Fleet::start().await;
    let word = make_token(&fleet, "h1").await;
    let good = greedy();
    let mut other_signature = good.clone();
    *other_signature.last_mut().unwrap() ^= 1;
    let followed = [&good[..], &[0]].concat();
    for (what, csr_der, words) in [
        (
            "P-384",
            of_kind(&PKCS_ECDSA_P384_SHA384),
            "its key is not ECDSA P-256",
        ),
        ("Ed25519", of_kind(&PKCS_ED25519), "its key is not ECDSA P-256"),
        ("RSA", openssl(RSA), "its key is not ECDSA P-256"),
        ("nothing", Vec::new(), "not a certificate signing request"),
        ("zeros", vec![0; 300], "not a certificate signing request"),
        ("a long one", vec![0x30; 9000], "at most 8192"),
        (
            "half",
            good[..good.len() / 2].to_vec(),
            "not a certificate signing request",
        ),
        ("another's signature", other_signature, "does not verify"),
        ("one with more", followed, "1 bytes follow it"),
    ] {
        let status = trade(&fleet, &word, csr_der).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert!(status.message().contains(words), "{what}: {status}");
    }
    trade(&fleet, &word, good).await.unwrap();
}
