//! What the CA issues, judged by openssl, and what it refuses.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::fs;

use hostler_pki::Identity;
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, DEFAULT_LEAF_LIFETIME, IssueOptions, MAX_LIFETIME};
use hostler_pki::certificate::CertificateFacts;
use hostler_pki::files::read_certificates;
use hostler_pki::issued::Existing;
use support::{ADMIN, AGENT, COORDINATOR, DAY, Fleet, chmod, mode, openssl, words};

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

#[test]
fn openssl_accepts_what_we_issue_for_its_use_and_no_other() {
    let fleet = Fleet::new();
    let long = format!("spiffe://example.org/agent/{}", "x".repeat(100));
    for (who, good, bad) in [
        (COORDINATOR, "sslserver", "sslclient"),
        (AGENT, "sslclient", "sslserver"),
        (ADMIN, "sslclient", "sslserver"),
        (&long, "sslclient", "sslserver"),
    ] {
        let files = fleet.issue(who);
        let (ca, leaf) = (files.ca.to_str().unwrap(), files.certificate.to_str().unwrap());
        let verify = |purpose| openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, leaf]);
        let (fit, said) = verify(good);
        assert!(fit, "{who}: {said}");
        let (fit, said) = verify(bad);
        assert!(!fit && said.contains("purpose"), "{who}: {said}");
        let (fit, said) = openssl(&["verify", "-x509_strict", "-CAfile", ca, leaf]);
        assert!(fit, "{who}: {said}");
    }
}

#[test]
fn an_openssl_reader_finds_every_part() {
    let fleet = Fleet::new();
    let options = IssueOptions {
        dns_names: vec!["c1.example.org".to_owned()],
        ip_addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        lifetime: 7 * DAY,
        ..IssueOptions::default()
    };
    let issued = fleet.authority.issue(&identity(COORDINATOR), &options).unwrap();
    let written = issued.write(fleet.path(), "c1", Existing::Keep).unwrap();
    let (_, text) = openssl(&[
        "x509",
        "-noout",
        "-text",
        "-in",
        written.certificate.to_str().unwrap(),
    ]);
    for part in [
        "NIST CURVE: P-256",
        "ecdsa-with-SHA256",
        "URI:spiffe://example.org/coordinator/c1, DNS:c1.example.org, IP Address:10.0.0.1, IP Address:2001:DB8:0:0:0:0:0:1",
        "CA:FALSE",
        "TLS Web Server Authentication",
        "Subject Key Identifier",
        "Authority Key Identifier",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (_, text) = openssl(&[
        "x509",
        "-noout",
        "-text",
        "-in",
        fleet.path().join("ca.crt").to_str().unwrap(),
    ]);
    for part in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "URI:spiffe://example.org",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let facts = CertificateFacts::read(&read_certificates(&written.certificate).unwrap()[0]).unwrap();
    assert_eq!(facts.usages, ["serverAuth"]);
    assert_eq!(facts.not_after, issued.not_after);
    let (_, fingerprint) = openssl(&[
        "x509",
        "-noout",
        "-fingerprint",
        "-sha256",
        "-in",
        written.certificate.to_str().unwrap(),
    ]);
    assert!(fingerprint.contains(&facts.fingerprint), "{fingerprint}");
}

#[test]
fn serial_numbers_are_long_and_differ() {
    let fleet = Fleet::new();
    let serial = || {
        CertificateFacts::read(&read_certificates(&fleet.issue(AGENT).certificate).unwrap()[0])
            .unwrap()
            .serial
    };
    let (one, two) = (serial(), serial());
    assert_eq!(one.len(), 16 * 3 - 1, "{one}");
    assert_ne!(one, two);
}

#[test]
fn the_ca_refuses_what_its_certificates_must_not_say() {
    let fleet = Fleet::new();
    let refused = |who: &str, options: &IssueOptions| {
        let result = fleet.authority.issue(&identity(who), options);
        words(&result.err().expect("it was issued"))
    };
    let plain = IssueOptions::default();
    let lasting = |lifetime| IssueOptions {
        lifetime,
        ..IssueOptions::default()
    };
    let named = |name: &str| IssueOptions {
        dns_names: vec![name.to_owned()],
        ..IssueOptions::default()
    };
    let other = refused("spiffe://other.org/agent/node-1", &plain);
    assert!(
        other.contains("not of this CA's trust domain example.org"),
        "{other}"
    );
    assert!(refused(AGENT, &lasting(2 * DEFAULT_CA_LIFETIME)).contains("fewer days"));
    assert!(refused(AGENT, &lasting(DAY / 100_000)).contains("1 s to 36500 days"));
    assert!(refused(AGENT, &lasting(MAX_LIFETIME + DAY)).contains("1 s to 36500 days"));
    assert!(refused(AGENT, &named("a.example")).contains("takes no DNS name"));
    for bad in ["", "a b", "é", "*.example.org", "a\0"] {
        assert!(
            refused(COORDINATOR, &named(bad)).contains("is not a DNS name"),
            "{bad:?}"
        );
    }
    assert_eq!(plain.lifetime, DEFAULT_LEAF_LIFETIME);
}

#[test]
fn a_ca_opens_again_and_goes_on() {
    let fleet = Fleet::new();
    let again = Authority::open(fleet.path()).unwrap();
    assert_eq!(again.trust_domain(), fleet.authority.trust_domain());
    assert_eq!(again.not_after(), fleet.authority.not_after());
    let issued = again.issue(&identity(AGENT), &IssueOptions::default()).unwrap();
    issued.write(fleet.path(), "node-1", Existing::Keep).unwrap();
    hostler_pki::Credentials::load(&fleet.files("node-1")).unwrap();
}

#[test]
fn a_ca_that_is_not_whole_does_not_open() {
    let refused = |fleet: &Fleet| words(&Authority::open(fleet.path()).err().expect("it opened"));
    let fleet = Fleet::new();
    chmod(&fleet.path().join("ca.key"), 0o644);
    assert!(refused(&fleet).contains("chmod 0600"));
    assert!(
        !refused(&fleet).contains("hostler-pki init"),
        "a new CA is no cure"
    );
    fs::remove_file(fleet.path().join("ca.key")).unwrap();
    assert!(refused(&fleet).contains("put that back from a copy"));
    fs::remove_file(fleet.path().join("ca.crt")).unwrap();
    assert!(refused(&fleet).contains("hostler-pki init"));

    let fleet = Fleet::new();
    fs::copy(Fleet::new().path().join("ca.key"), fleet.path().join("ca.key")).unwrap();
    assert!(refused(&fleet).contains("ca.key does not belong to it"));

    let fleet = Fleet::new();
    let leaf = fleet.issue(AGENT);
    fs::copy(leaf.certificate, fleet.path().join("ca.crt")).unwrap();
    assert!(refused(&fleet).contains("may not sign"));
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let fleet = Fleet::new();
    let before = fs::read(fleet.path().join("ca.key")).unwrap();
    let error = Authority::init(fleet.path(), "x".parse().unwrap(), DEFAULT_CA_LIFETIME)
        .err()
        .unwrap();
    assert!(words(&error).contains("ca.crt exists"), "{}", words(&error));
    assert_eq!(fs::read(fleet.path().join("ca.key")).unwrap(), before);

    let issue = || {
        fleet
            .authority
            .issue(&identity(AGENT), &IssueOptions::default())
            .unwrap()
    };
    let first = issue();
    first.write(fleet.path(), "n", Existing::Keep).unwrap();
    let second = issue();
    let error = second.write(fleet.path(), "n", Existing::Keep).unwrap_err();
    assert!(words(&error).contains("n.crt exists"), "{}", words(&error));
    assert_eq!(
        fs::read_to_string(fleet.path().join("n.key")).unwrap(),
        *first.key_pem
    );

    // Half a pair is kept too, and not completed.
    fs::remove_file(fleet.path().join("n.crt")).unwrap();
    let error = second.write(fleet.path(), "n", Existing::Keep).unwrap_err();
    assert!(words(&error).contains("n.key exists"), "{}", words(&error));
    assert!(!fleet.path().join("n.crt").exists());

    // A loose old key does not make the new one loose.
    chmod(&fleet.path().join("n.key"), 0o666);
    let written = second.write(fleet.path(), "n", Existing::Replace).unwrap();
    assert_eq!(fs::read_to_string(&written.key).unwrap(), *second.key_pem);
    assert_eq!((mode(&written.key), mode(&written.certificate)), (0o600, 0o644));
    let names = fs::read_dir(fleet.path()).unwrap().count();
    assert_eq!(names, 4, "something was left behind");
}

#[test]
fn what_a_crash_left_beside_the_files_goes_with_the_next_write() {
    let fleet = Fleet::new();
    let issued = fleet
        .authority
        .issue(&identity(AGENT), &IssueOptions::default())
        .unwrap();
    // No process has such a number (proc(5), pid_max), and init is always there.
    let (gone, own, alive) = (u32::MAX, std::process::id(), 1);
    for pid in [gone, own, alive] {
        fs::write(fleet.path().join(format!("n.key.{pid}.new")), "a key").unwrap();
    }
    fs::write(fleet.path().join("n.key.old.new"), "a person's").unwrap();
    issued.write(fleet.path(), "n", Existing::Replace).unwrap();
    let mut names: Vec<_> = fs::read_dir(fleet.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "ca.crt",
        "ca.key",
        "n.crt",
        "n.key",
        "n.key.1.new",
        "n.key.old.new",
    ];
    assert_eq!(names, expected);
}

#[test]
fn files_stay_in_their_directory_and_never_take_the_place_of_the_ca() {
    let fleet = Fleet::new();
    let issued = fleet
        .authority
        .issue(&identity(AGENT), &IssueOptions::default())
        .unwrap();
    for stem in ["ca", "", "../x", "a/b", "-x", ".hidden"] {
        assert!(
            issued.write(fleet.path(), stem, Existing::Replace).is_err(),
            "{stem:?}"
        );
    }
    assert_eq!(fs::read_dir(fleet.path()).unwrap().count(), 2);
    let written = issued
        .write(&fleet.path().join("new/dir"), "x", Existing::Keep)
        .unwrap();
    assert_eq!(mode(&written.key), 0o600);
}
