//! `hostler-pki` as a person runs it.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::path::Path;

use support::{mode, openssl};
use tempfile::TempDir;

/// Runs the program in `dir`: its exit code, what it printed, what it complained.
// Product code starts no program from here; the test is about this one.
#[allow(clippy::disallowed_methods)]
fn run(dir: &Path, line: &str) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hostler-pki"))
        .args(line.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A directory with a CA in `pki/`.
fn with_ca() -> TempDir {
    let dir = TempDir::new().unwrap();
    let (code, out, error) = run(dir.path(), "init --dir pki --trust-domain example.org");
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("pki/ca.crt") && out.contains("pki/ca.key"), "{out}");
    dir
}

#[test]
fn the_examples_of_the_help_work_as_they_stand() {
    let dir = TempDir::new().unwrap();
    let (code, help, _) = run(dir.path(), "--help");
    assert_eq!(code, 0);
    let mut ran = 0;
    for line in help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("hostler-pki "))
    {
        // What the shell would do.
        let line = line
            .replace("~", "home")
            .replace("pki/*.crt", "pki/ca.crt pki/c1.crt pki/node-1.crt");
        let (code, out, error) = run(dir.path(), &line);
        assert_eq!(code, 0, "{line}: {out}{error}");
        ran += 1;
    }
    assert_eq!(ran, 7);
    let pki = dir.path().join("pki");
    assert_eq!(mode(&pki.join("ca.key")), 0o600);
    assert_eq!(mode(&pki.join("ca.crt")), 0o644);
    assert_eq!(mode(&pki.join("node-1.key")), 0o600);
    assert_eq!(mode(&dir.path().join("home/.config/hostler/ada.key")), 0o600);
    let path = |name: &str| pki.join(name).to_str().unwrap().to_owned();
    let (good, said) = openssl(&[
        "verify",
        "-x509_strict",
        "-CAfile",
        &path("ca.crt"),
        &path("c1.crt"),
    ]);
    assert!(good, "{said}");
}

#[test]
fn show_tells_people_and_programs_the_same() {
    let dir = with_ca();
    run(
        dir.path(),
        "issue client operator ada --dir pki --days 30 --out-name ops",
    );
    let (code, text, _) = run(dir.path(), "show pki/ops.crt pki/ca.crt");
    assert_eq!(code, 0);
    for part in [
        "spiffe://example.org/client/operator/ada",
        "issuer    CN=Hostler CA ",
        "(29 days left)",
        "ECDSA P-256",
        "clientAuth",
        "the CA of example.org",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (code, json, _) = run(dir.path(), "show pki/ops.crt pki/ca.crt --output json");
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["identity"], "spiffe://example.org/client/operator/ada");
    assert_eq!(json[0]["days_left"], 29);
    assert_eq!(json[0]["usages"], serde_json::json!(["clientAuth"]));
    assert_eq!(json[1]["trust_domain"], "example.org");
    let fingerprint = json[0]["fingerprint_sha256"].as_str().unwrap();
    assert!(text.contains(fingerprint), "{text}");

    let (code, text, error) = run(dir.path(), "show absent.crt pki/ca.crt");
    assert_eq!(code, 1);
    assert!(
        error.contains("cannot read absent.crt") && text.contains("the CA of"),
        "{text}{error}"
    );
}

#[test]
fn verify_says_good_or_bad_and_why() {
    let dir = with_ca();
    run(dir.path(), "issue agent node-1 --dir pki");
    run(dir.path(), "init --dir other --trust-domain other.org");
    run(dir.path(), "issue agent node-2 --dir other");
    let (code, out, _) = run(dir.path(), "verify --ca pki/ca.crt pki/node-1.crt pki/ca.crt");
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("pki/node-1.crt: good: spiffe://example.org/agent/node-1"),
        "{out}"
    );
    let (code, out, _) = run(
        dir.path(),
        "verify --ca pki/ca.crt pki/node-1.crt other/node-2.crt pki/node-1.key",
    );
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("node-1.crt: good") && out.contains("node-2.crt: bad: it is not signed by the CA"),
        "{out}"
    );
    assert!(
        out.contains("node-1.key: bad: ") && out.contains("holds no certificate"),
        "{out}"
    );
    let (code, _, error) = run(dir.path(), "verify --ca pki/node-1.crt pki/node-1.crt");
    assert_ne!(code, 0);
    assert!(error.contains("node-1.crt is no CA"), "{error}");
    let (code, _, error) = run(dir.path(), "verify --ca absent.crt pki/node-1.crt");
    assert_eq!(code, 1);
    assert!(error.contains("cannot read absent.crt"), "{error}");
}

#[test]
fn half_a_ca_stays_and_is_told_with_what_to_do() {
    for (there, missing) in [("ca.key", "ca.crt"), ("ca.crt", "ca.key")] {
        let dir = with_ca();
        std::fs::remove_file(dir.path().join("pki").join(missing)).unwrap();
        let before = std::fs::read(dir.path().join("pki").join(there)).unwrap();
        let (code, _, error) = run(dir.path(), "init --dir pki --trust-domain example.org");
        assert_eq!(code, 1);
        let says = format!("pki/{there} is there without pki/{missing}; put that back from a copy");
        assert!(error.contains(&says), "{error}");
        assert_eq!(std::fs::read(dir.path().join("pki").join(there)).unwrap(), before);
        assert!(!dir.path().join("pki").join(missing).exists());
    }
}

#[test]
fn nothing_is_overwritten_without_force() {
    let dir = with_ca();
    let (code, _, error) = run(dir.path(), "init --dir pki --trust-domain example.org");
    assert_eq!(code, 1);
    assert!(
        error.contains("pki/ca.crt exists and is not overwritten"),
        "{error}"
    );
    assert_eq!(run(dir.path(), "issue agent node-1 --dir pki").0, 0);
    let before = std::fs::read(dir.path().join("pki/node-1.key")).unwrap();
    let (code, _, error) = run(dir.path(), "issue agent node-1 --dir pki");
    assert_eq!(code, 1);
    assert!(
        error.contains("node-1.crt exists") && error.contains("--force"),
        "{error}"
    );
    assert_eq!(std::fs::read(dir.path().join("pki/node-1.key")).unwrap(), before);
    assert_eq!(run(dir.path(), "issue agent node-1 --dir pki --force").0, 0);
    assert_ne!(std::fs::read(dir.path().join("pki/node-1.key")).unwrap(), before);
    let (code, _, error) = run(dir.path(), "issue agent ca --dir pki --force");
    assert_eq!(code, 1);
    assert!(error.contains("the CA's own"), "{error}");
}

#[test]
fn wrong_arguments_exit_with_2_and_a_sentence() {
    let dir = with_ca();
    for (line, says) in [
        ("", "Usage"),
        ("issue agent", "HOST"),
        ("issue agent a/b --dir pki", "ill-formed"),
        ("issue client root ada --dir pki", "viewer, operator and admin"),
        ("issue agent n --dir pki --days 0", "1 to 36500"),
        ("issue coordinator c --dir pki --ip nowhere", "invalid IP address"),
        ("init --dir x --trust-domain Example.ORG", "lower-case"),
        ("show", "FILE"),
        ("verify pki/ca.crt", "--ca"),
    ] {
        let (code, out, error) = run(dir.path(), line);
        assert_eq!(code, 2, "{line}: {out}{error}");
        assert!(error.contains(says), "{line}: {error}");
    }
    assert!(!dir.path().join("x").exists());
    let (code, _, error) = run(dir.path(), "issue coordinator c --dir pki --days 36500");
    assert_eq!(code, 1);
    assert!(error.contains("ask for fewer days"), "{error}");
}
