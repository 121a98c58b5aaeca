//! What our own files may be, and the sentence for each thing that is wrong with them.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::fs;
use std::path::PathBuf;

use hostler_pki::{Credentials, Revocations, TlsFiles, client_config, server_config};
use support::{ADMIN, AGENT, COORDINATOR, DAY, Fleet, chmod, words, write_key};

fn refusal(files: &TlsFiles) -> String {
    words(&Credentials::load(files).expect_err("bad credentials were taken"))
}

#[track_caller]
fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn issued_credentials_load_and_know_whom_they_are_for() {
    let fleet = Fleet::new();
    for identity in [COORDINATOR, AGENT, ADMIN] {
        let credentials = fleet.credentials(identity);
        assert_eq!(credentials.identity().to_string(), identity);
        let left = hostler_common::units::UnixMillis::now().until(credentials.not_after());
        assert!(left > 89 * DAY && left <= 90 * DAY, "{left:?}");
        let shown = format!("{credentials:?}");
        assert!(!shown.to_lowercase().contains("key"), "{shown}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let fleet = Fleet::new();
    let good = fleet.issue(AGENT);
    let each: [fn(&mut TlsFiles) -> &mut PathBuf; 3] =
        [|f| &mut f.ca, |f| &mut f.certificate, |f| &mut f.key];
    for pick in each {
        let mut files = good.clone();
        *pick(&mut files) = fleet.path().join("absent.pem");
        assert_says(&refusal(&files), &["cannot read", "absent.pem", "No such file"]);
        let mut files = good.clone();
        *pick(&mut files) = fleet.path().to_owned();
        assert_says(&refusal(&files), &["is not a file"]);
    }
}

#[test]
fn a_loose_key_is_refused_with_the_command_that_cures_it() {
    let fleet = Fleet::new();
    let files = fleet.issue(AGENT);
    for mode in [0o640, 0o604, 0o620, 0o610, 0o601, 0o644, 0o777] {
        chmod(&files.key, mode);
        let chmod_it = format!("chmod 0600 {}", files.key.display());
        assert_says(&refusal(&files), &[&chmod_it, &format!("{mode:04o}")]);
    }
    chmod(&files.key, 0o400);
    Credentials::load(&files).unwrap();
}

#[test]
fn root_takes_no_key_that_another_user_owns() {
    let fleet = Fleet::new();
    let files = fleet.issue(AGENT);
    if !nix::unistd::Uid::effective().is_root() {
        // Only root can give a file away, and only root can read what it gave away.
        Credentials::load(&files).unwrap();
        return;
    }
    std::os::unix::fs::chown(&files.key, Some(65_534), None).unwrap();
    let chown_it = format!("chown root {}", files.key.display());
    assert_says(&refusal(&files), &[&chown_it, "65534"]);
    // A certificate is no secret, and whoever swaps it only breaks the pair.
    std::os::unix::fs::chown(&files.key, Some(0), None).unwrap();
    std::os::unix::fs::chown(&files.certificate, Some(65_534), None).unwrap();
    Credentials::load(&files).unwrap();
}

#[test]
fn a_key_whose_line_ends_are_gone_is_refused_and_nothing_of_it_is_told() {
    let fleet = Fleet::new();
    let files = fleet.issue(AGENT);
    let key = fs::read_to_string(&files.key).unwrap();
    let on_one_line = key.replace('\n', "");
    for broken in [
        on_one_line.clone(),
        on_one_line.replacen("-----END", "----END", 1),
    ] {
        write_key(&files.key, &broken);
        let said = refusal(&files);
        assert_says(&said, &["is not PEM", "line ends"]);
        // As bytes or as letters.
        let file = files.key.display().to_string();
        let beside_the_name = said.replace(&file, "");
        assert!(!beside_the_name.contains(|c: char| c.is_ascii_digit()), "{said}");
        assert!(!said.contains(&key[40..50]), "{said}");
    }
}

#[test]
fn a_key_file_holds_exactly_one_key() {
    let fleet = Fleet::new();
    let files = fleet.issue(AGENT);
    let key = fs::read_to_string(&files.key).unwrap();
    write_key(&files.key, &key.repeat(2));
    assert_says(&refusal(&files), &["2 private keys"]);
    write_key(&files.key, "hello\n");
    assert_says(&refusal(&files), &["0 private keys"]);
    write_key(
        &files.key,
        "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n",
    );
    assert_says(&refusal(&files), &["is not PEM"]);
    write_key(
        &files.key,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    assert_says(&refusal(&files), &["cannot be used"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let fleet = Fleet::new();
    let mut files = fleet.issue(AGENT);
    files.key = fleet.issue(ADMIN).key;
    assert_says(
        &refusal(&files),
        &["does not belong to", "agent-node-1.crt", "client-admin-ada.key"],
    );
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let fleet = Fleet::new();
    let good = fleet.issue(AGENT);
    for text in ["", "hello\n", &fs::read_to_string(&good.key).unwrap()] {
        let empty = fleet.path().join("empty.pem");
        fs::write(&empty, text).unwrap();
        let mut files = good.clone();
        files.ca = empty.clone();
        assert_says(&refusal(&files), &["empty.pem holds no certificate"]);
        let mut files = good.clone();
        files.certificate = empty;
        assert_says(&refusal(&files), &["empty.pem holds no certificate"]);
    }
    let garbage = fleet.path().join("garbage.pem");
    fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let mut files = good.clone();
    files.ca = garbage.clone();
    assert_says(&refusal(&files), &["garbage.pem", "cannot be a root"]);
    let mut files = good;
    files.certificate = garbage;
    assert_says(&refusal(&files), &["garbage.pem", "X.509"]);
}

#[test]
fn a_certificate_that_peers_would_refuse_is_refused_at_home() {
    let fleet = Fleet::new();
    let now = time::OffsetDateTime::now_utc();
    let expired = fleet.forge("expired", &[AGENT], |params| params.not_after = now - DAY / 2);
    assert_says(
        &refusal(&expired),
        &["expired.crt", "it expired at", "issue a new one"],
    );
    let early = fleet.forge("early", &[AGENT], |params| params.not_before = now + DAY / 2);
    assert_says(&refusal(&early), &["early.crt", "not valid before", "clocks"]);
    let nobody = fleet.forge("nobody", &[], |_| {});
    assert_says(&refusal(&nobody), &["no valid identity", "no spiffe:// URI"]);
    let two = fleet.forge("two", &[AGENT, ADMIN], |_| {});
    assert_says(&refusal(&two), &["names 2 URIs", AGENT, ADMIN]);
    let serving = fleet.forge("serving", &[COORDINATOR], |_| {});
    assert_says(&refusal(&serving), &["not issued to serve"]);
    let mut foreign = fleet.issue(AGENT);
    foreign.ca = Fleet::new().issue(AGENT).ca;
    assert_says(&refusal(&foreign), &["cannot read"]);
    let other = Fleet::new();
    foreign.ca = other.issue(AGENT).ca;
    assert_says(&refusal(&foreign), &["not signed by the CA", "agent-node-1.crt"]);
}

#[test]
fn credentials_in_the_wrong_place_are_refused_at_home() {
    let fleet = Fleet::new();
    let error = server_config(&fleet.credentials(AGENT), Revocations::none()).unwrap_err();
    assert_says(&words(&error), &[AGENT, "cannot be used to serve"]);
    let error = client_config(&fleet.credentials(COORDINATOR)).unwrap_err();
    assert_says(&words(&error), &[COORDINATOR, "cannot be used to call"]);
}
