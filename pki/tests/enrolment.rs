//! How a host gets its first certificate: the token, the connection that it pins, and the request.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::sync::Arc;

use hostler_common::units::UnixMillis;
use hostler_pki::ca::{Authority, BeyondCa, IssueOptions};
use hostler_pki::certificate::CertificateFacts;
use hostler_pki::files::read_certificates;
use hostler_pki::issued::Existing;
use hostler_pki::{
    About, ChannelOptions, CoordinatorAddress, Credentials, EnrolToken, Fingerprint, Identity, KeyRequest,
    Revocations, Theirs, TokenError, TrustBundle, connect_to_enrol, enrol_server_config, revocation,
    server_config,
};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use support::{ADMIN, AGENT, COORDINATOR, DAY, DEADLINE, Fleet, mode, openssl, words};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

fn options() -> IssueOptions {
    IssueOptions::default()
}

fn token(fleet: &Fleet) -> EnrolToken {
    EnrolToken::new("node-1".parse().unwrap(), fleet.credentials(COORDINATOR).root()).unwrap()
}

#[test]
fn a_request_becomes_a_certificate_for_its_key_and_the_identity_that_the_ca_says() {
    let fleet = Fleet::new();
    let request = KeyRequest::new().unwrap();
    let signed = fleet
        .authority
        .sign_request(request.csr_der(), &identity(AGENT), &options())
        .unwrap();
    let issued = request.complete(&signed.certificate_pem).unwrap();
    assert_eq!(issued.identity.to_string(), AGENT);
    assert_eq!(
        (issued.not_before, issued.not_after),
        (signed.not_before, signed.not_after)
    );

    let mut files = fleet.files("one");
    files.certificate = fleet.path().join("identity.pem");
    files.key = files.certificate.clone();
    issued.write_one_file(&files.certificate).unwrap();
    assert_eq!(mode(&files.certificate), 0o600);
    assert_eq!(Credentials::load(&files).unwrap().identity().to_string(), AGENT);
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (fit, said) = openssl(&[
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-CAfile",
        &path(&files.ca),
        &path(&files.certificate),
    ]);
    assert!(fit, "{said}");

    // Again, over the one before.
    let again = KeyRequest::new().unwrap();
    let signed = fleet
        .authority
        .sign_request(again.csr_der(), &identity(AGENT), &options())
        .unwrap();
    again
        .complete(&signed.certificate_pem)
        .unwrap()
        .write_one_file(&files.certificate)
        .unwrap();
    assert_eq!(Credentials::load(&files).unwrap().not_after(), signed.not_after);
    let said = words(&request.complete(&signed.certificate_pem).err().unwrap());
    assert!(said.contains("not for the key that was made here"), "{said}");
    for nonsense in ["", "hello", &*issued.key_pem] {
        let said = words(&request.complete(nonsense).err().unwrap());
        assert!(said.contains("no certificate"), "{said}");
    }
    assert!(!format!("{request:?}").contains("PRIVATE"));
}

#[test]
fn openssl_reads_our_request_and_we_read_openssls() {
    let fleet = Fleet::new();
    let file = fleet.path().join("request.der");
    let out = file.to_str().unwrap();
    std::fs::write(&file, KeyRequest::new().unwrap().csr_der()).unwrap();
    let (good, said) = openssl(&["req", "-verify", "-noout", "-inform", "DER", "-in", out]);
    assert!(good, "{said}");
    let key = fleet.path().join("other.key");
    let (good, said) = openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        key.to_str().unwrap(),
        "-subj",
        "/CN=root/O=ours",
        "-addext",
        "subjectAltName=URI:spiffe://example.org/client/admin/eve",
        "-outform",
        "DER",
        "-out",
        out,
    ]);
    assert!(good, "{said}");
    let signed = fleet
        .authority
        .sign_request(&std::fs::read(&file).unwrap(), &identity(AGENT), &options())
        .unwrap();
    let leaf = CertificateDer::from_pem_slice(signed.certificate_pem.as_bytes()).unwrap();
    let facts = CertificateFacts::read(&leaf).unwrap();
    assert_eq!(facts.names, [format!("URI:{AGENT}")]);
    assert_eq!(facts.subject, "CN=node-1");
    assert!(!facts.is_ca);
    assert_eq!(facts.usages, ["clientAuth"]);
}

#[test]
fn a_request_that_is_not_as_ours_is_refused_in_words() {
    let fleet = Fleet::new();
    let refused = |csr: &[u8]| {
        let result = fleet.authority.sign_request(csr, &identity(AGENT), &options());
        words(&result.expect_err("it was signed"))
    };
    let made = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.subject_alt_names = vec![SanType::URI(ADMIN.try_into().unwrap())];
        params.serialize_request(&key).unwrap().der().to_vec()
    };
    let request = KeyRequest::new().unwrap();
    let good = request.csr_der().to_vec();
    for (csr, says) in [
        (made(&PKCS_ECDSA_P384_SHA384), "not ECDSA P-256"),
        (made(&PKCS_ED25519), "not ECDSA P-256"),
        (Vec::new(), "not a certificate signing request"),
        (b"hello".to_vec(), "not a certificate signing request"),
        ([&good[..], b"x"].concat(), "1 bytes follow it"),
        (vec![0x30; 9000], "9000 bytes"),
    ] {
        let said = refused(&csr);
        assert!(
            said.starts_with("the certificate request for spiffe://example.org/agent/node-1 is refused: ")
                && said.contains(says),
            "{said}"
        );
    }
    // Whichever bit is changed, it is refused; but for a few of the outer encoding, which is not signed, and then the
    // key is the same.
    let mut taken = 0;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            if let Ok(signed) = fleet
                .authority
                .sign_request(&changed, &identity(AGENT), &options())
            {
                request.complete(&signed.certificate_pem).unwrap();
                taken += 1;
            }
        }
    }
    assert!(taken < 20, "{taken} of {} bits", good.len() * 8);
}

#[test]
fn what_follows_a_revocation_begins_after_its_second_and_what_a_ca_signs_ends_with_it() {
    let fleet = Fleet::new();
    let request = KeyRequest::new().unwrap();
    let sign = |authority: &Authority, options: &IssueOptions| {
        authority.sign_request(request.csr_der(), &identity(AGENT), options)
    };
    let now = UnixMillis::now();
    let usual = sign(&fleet.authority, &options()).unwrap();
    assert!(revocation::covers(now, usual.not_before));
    let after = IssueOptions {
        after: Some(now),
        lifetime: 2 * DAY / 86_400,
        ..options()
    };
    let signed = sign(&fleet.authority, &after).unwrap();
    assert!(!revocation::covers(now, signed.not_before), "{signed:?}");
    assert!(now.until(signed.not_before).as_secs() <= 1, "{signed:?}");
    assert!(signed.not_before < signed.not_after);
    let long_ago = IssueOptions {
        after: Some(UnixMillis(now.0 - 3_600_000)),
        ..options()
    };
    let signed = sign(&fleet.authority, &long_ago).unwrap();
    assert!(signed.not_before < now);
    let ahead = IssueOptions {
        after: Some(now.plus(DAY)),
        ..options()
    };
    let said = words(&sign(&fleet.authority, &ahead).unwrap_err());
    assert!(
        said.contains("later than now") && said.contains("compare the clocks"),
        "{said}"
    );

    let dir = tempfile::tempdir().unwrap();
    let short = Authority::init(dir.path(), "example.org".parse().unwrap(), 5 * DAY).unwrap();
    let said = words(&sign(&short, &options()).unwrap_err());
    assert!(said.contains("rotate-ca"), "{said}");
    let shortened = IssueOptions {
        beyond_ca: BeyondCa::Shorten,
        ..options()
    };
    assert_eq!(sign(&short, &shortened).unwrap().not_after, short.not_after());
}

#[test]
fn a_pending_key_is_the_same_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrol.key");
    let first = KeyRequest::pending(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let second = KeyRequest::pending(&path).unwrap();
    let fleet = Fleet::new();
    let signed = fleet
        .authority
        .sign_request(first.csr_der(), &identity(AGENT), &options())
        .unwrap();
    second.complete(&signed.certificate_pem).unwrap();
    std::fs::write(&path, "hello").unwrap();
    let said = words(&KeyRequest::pending(&path).unwrap_err());
    assert!(said.contains("enrol.key") && said.contains("move"), "{said}");
}

#[test]
fn a_token_is_one_word_that_survives_copying() {
    let fleet = Fleet::new();
    let token = token(&fleet);
    let word = token.to_word();
    assert!(word.starts_with("hostler1-"), "{}", word.len());
    assert!(
        word[9..]
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    );
    for copied in [word.to_string(), format!("  {}\n", *word), word.to_uppercase()] {
        let read = EnrolToken::parse(&copied).unwrap();
        assert_eq!(
            (read.id(), read.host(), read.ca()),
            (token.id(), token.host(), token.ca())
        );
        assert_eq!(read.secret_hash(), token.secret_hash());
    }
    assert_ne!(self::token(&fleet).secret_hash(), token.secret_hash());
    let id = token.id().to_string();
    assert_eq!((id.len(), id.parse()), (16, Ok(token.id())));
    let longest = EnrolToken::new("x".repeat(128).parse().unwrap(), token.ca()).unwrap();
    EnrolToken::parse(&longest.to_word()).unwrap();
}

#[test]
fn a_token_that_was_altered_is_told_as_such_and_never_repeated() {
    let fleet = Fleet::new();
    let token = token(&fleet);
    let word = token.to_word().to_string();
    let shown = format!("{token:?}");
    assert!(!shown.contains(&word[22..40]), "{shown}");
    // Every character, replaced by another that a token may hold.
    for at in 9..word.len() {
        let mut changed = word.clone().into_bytes();
        changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(
            EnrolToken::parse(&changed).unwrap_err(),
            TokenError::Checksum,
            "{at}"
        );
    }
    for (text, says) in [
        (String::new(), "begins with hostler1-"),
        ("hostler-abc".to_owned(), "begins with hostler1-"),
        ("é".repeat(9), "begins with hostler1-"),
        (format!("hostler2-{}", &word[9..]), "another version"),
        (format!("{}!{}", &word[..40], &word[41..]), "character 41"),
        (format!("{} {}", &word[..40], &word[40..]), "character 41"),
        (word[..word.len() - 1].to_owned(), "checksum"),
        (word[..40].to_owned(), "40 characters"),
        (word[..9].to_owned(), "9 characters"),
        (format!("{word}a"), "checksum"),
        (
            "hostler1-".to_owned() + &"a".repeat(1_000_000),
            "1000009 characters",
        ),
    ] {
        let said = words(&EnrolToken::parse(&text).unwrap_err());
        assert!(said.contains(says), "{said}");
        assert!(!said.contains(&word[9..20]), "{said}");
    }
}

/// Answers every handshake with a settings frame, as an HTTP/2 server does; counts what it reads in none.
async fn serve(config: Arc<ServerConfig>) -> CoordinatorAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else {
                continue;
            };
            tokio::spawn(async move {
                let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
                let _ = stream.flush().await;
                // Held open until the caller has gone.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    address
}

async fn enrol(address: &CoordinatorAddress, pin: Fingerprint) -> Result<(), (String, About)> {
    let connecting = connect_to_enrol(address, pin, ChannelOptions::default());
    tokio::time::timeout(DEADLINE, connecting)
        .await
        .expect("connecting hangs")
        .map(drop)
        .map_err(|error| (words(&error), error.about()))
}

#[tokio::test]
async fn a_caller_without_any_ca_pins_the_root_of_the_coordinator() {
    let fleet = Fleet::new();
    let credentials = fleet.credentials(COORDINATOR);
    let address = serve(enrol_server_config(&credentials).unwrap()).await;
    enrol(&address, credentials.root()).await.unwrap();
    let ca = read_certificates(&fleet.files("x").ca).unwrap();
    assert_eq!(credentials.root(), Fingerprint::of(&ca[0]));
    let bundle = TrustBundle::parse(&credentials.ca_pem()).unwrap();
    assert_eq!(bundle.roots(), [credentials.root()]);
    let said = words(&enrol_server_config(&fleet.credentials(AGENT)).unwrap_err());
    assert!(said.contains("cannot be used to serve"), "{said}");
}

#[tokio::test]
async fn a_server_that_does_not_lead_to_the_pinned_root_gets_nothing() {
    let fleet = Fleet::new();
    let other = Fleet::new();
    let pin = fleet.credentials(COORDINATOR).root();
    let foreign = serve(enrol_server_config(&other.credentials(COORDINATOR)).unwrap()).await;
    let (said, about) = enrol(&foreign, pin).await.unwrap_err();
    assert!(
        said.contains("nothing was sent") && said.contains("does not lead to the CA"),
        "{said}"
    );
    assert!(said.contains(&pin.to_string()), "{said}");
    assert_eq!(about, About::Certificate);

    // The root is shown, and the leaf is another's.
    let ours = read_certificates(&fleet.files("x").ca).unwrap().remove(0);
    let show = |leaf: &hostler_pki::TlsFiles, root: CertificateDer<'static>| {
        let mut chain = read_certificates(&leaf.certificate).unwrap();
        chain.push(root);
        let key = rustls_pki_types::PrivateKeyDer::from_pem_file(&leaf.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    };
    let now = time::OffsetDateTime::now_utc();
    let serving = |stem: &str, uris: &[&str], ends: time::OffsetDateTime| {
        fleet.forge(stem, uris, |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            params.not_after = ends;
        })
    };
    for (leaf, says) in [
        (other.issue(COORDINATOR), "not signed by the CA"),
        (fleet.issue(AGENT), "was not issued to serve"),
        (serving("agent", &[AGENT], now + DAY), "not one to serve"),
        (serving("none", &[], now + DAY), "no valid identity"),
        (serving("old", &[COORDINATOR], now - DAY / 2), "it expired at"),
        (
            serving("other", &["spiffe://other.org/coordinator/c1"], now + DAY),
            "not of the trust domain example.org",
        ),
    ] {
        let address = serve(show(&leaf, ours.clone())).await;
        let (said, _) = enrol(&address, pin).await.unwrap_err();
        assert!(said.contains(says) && said.contains("nothing was sent"), "{said}");
    }
    // The leaf itself is pinned: it is no CA.
    let leaf = fleet.issue(COORDINATOR);
    let own = read_certificates(&leaf.certificate).unwrap().remove(0);
    let address = serve(show(&leaf, own.clone())).await;
    let (said, _) = enrol(&address, Fingerprint::of(&own)).await.unwrap_err();
    assert!(said.contains("not one of Hostler"), "{said}");
}

#[tokio::test]
async fn the_wrong_port_is_told_as_such() {
    let fleet = Fleet::new();
    let credentials = fleet.credentials(COORDINATOR);
    let usual = serve(server_config(&credentials, Revocations::none()).unwrap()).await;
    let (said, _) = enrol(&usual, credentials.root()).await.unwrap_err();
    assert!(
        said.contains("check that this is the port for enrolment"),
        "{said}"
    );
}

#[test]
fn a_bundle_that_would_cut_us_off_is_not_admitted() {
    let fleet = Fleet::new();
    let (other, foreign) = (Fleet::new(), Fleet::of_domain("other.org"));
    let ours = fleet.credentials(AGENT);
    let pem = |fleet: &Fleet| std::fs::read_to_string(fleet.files("x").ca).unwrap();
    let both = pem(&other) + &pem(&fleet);
    let over = |connected| Theirs { connected, shows: "" };
    let bundle = TrustBundle::admit(&both, &ours, over(Some(ours.root()))).unwrap();
    assert_eq!(bundle.roots().len(), 2);
    let path = fleet.path().join("taken.crt");
    bundle.write(&path).unwrap();
    assert_eq!(mode(&path), 0o644);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), both);

    let theirs = other.credentials(COORDINATOR).root();
    let leaf = fleet.authority.issue(&identity(AGENT), &options()).unwrap();
    leaf.write(fleet.path(), "leaf", Existing::Keep).unwrap();
    for (pem, theirs, says) in [
        (String::new(), None, "they are 0"),
        ("-----BEGIN CERTIFICATE-----\n?\n".to_owned(), None, "not PEM"),
        (pem(&fleet).repeat(9), None, "they are 9"),
        (pem(&fleet).repeat(200), None, "bytes"),
        (
            pem(&fleet) + &leaf.certificate_pem,
            None,
            "CN=node-1 among them is no CA",
        ),
        (pem(&fleet) + &pem(&foreign), None, "other.org among them"),
        (pem(&foreign), None, "other.org among them"),
        (pem(&other), None, "get a new certificate first"),
        (
            pem(&fleet),
            Some(theirs),
            "the CA of the coordinator that sent them",
        ),
    ] {
        let said = words(&TrustBundle::admit(&pem, &ours, over(theirs)).unwrap_err());
        assert!(said.contains(says), "{says}: {said}");
    }
}

#[test]
fn what_the_coordinator_shows_now_counts_for_more_than_the_connection_that_is_older() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let ours = fleet.credentials(AGENT);
    let pem = std::fs::read_to_string(fleet.files("x").ca).unwrap();
    let connected = Some(other.credentials(COORDINATOR).root());
    let shown = fleet.credentials(COORDINATOR).chain_pem();
    let admit = |shows: &str| TrustBundle::admit(&pem, &ours, Theirs { connected, shows });
    admit(&shown).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = now - DAY / 2;
    };
    let expired = fleet.forge("over", &[COORDINATOR], server);
    let over = std::fs::read_to_string(expired.certificate).unwrap();
    for (shows, says) in [
        (other.credentials(COORDINATOR).chain_pem(), "not signed by the CA"),
        (fleet.credentials(AGENT).chain_pem(), "was not issued to serve"),
        (over, "it expired at"),
        (String::new(), "the CA of the coordinator that sent them"),
    ] {
        let said = words(&admit(&shows).unwrap_err());
        assert!(said.contains(says), "{says}: {said}");
    }
}
