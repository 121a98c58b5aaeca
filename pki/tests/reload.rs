//! Files that change under a program that runs.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::fs;
use std::time::Duration;

use hostler_common::units::UnixMillis;
use hostler_pki::ca::{Authority, IssueOptions, rotation};
use hostler_pki::{Credentials, Reloaded, TlsFiles};
use support::{ADMIN, AGENT, DAY, DEADLINE, Fleet, chmod, words};

/// Credentials in one file.
fn one_file(fleet: &Fleet) -> TlsFiles {
    let path = fleet.path().join("identity.pem");
    let files = TlsFiles {
        certificate: path.clone(),
        key: path,
        ..fleet.files("x")
    };
    renew(fleet, &files, 90 * DAY);
    files
}

fn renew(fleet: &Fleet, files: &TlsFiles, lifetime: Duration) {
    let options = IssueOptions {
        lifetime,
        ..IssueOptions::default()
    };
    let issued = fleet.authority.issue(&AGENT.parse().unwrap(), &options).unwrap();
    issued.write_one_file(&files.certificate).unwrap();
}

#[test]
fn files_that_did_not_change_are_not_read_again_and_new_ones_are_taken() {
    let fleet = Fleet::new();
    let files = one_file(&fleet);
    let mut reloaded = Reloaded::load(files.clone()).unwrap();
    assert!(reloaded.poll().unwrap().is_none());
    let before = reloaded.current().not_after();
    renew(&fleet, &files, 30 * DAY);
    let taken = reloaded.poll().unwrap().unwrap().not_after();
    assert!(taken < before);
    assert_eq!(reloaded.current().not_after(), taken);
    assert!(reloaded.poll().unwrap().is_none());
    // Only the CA has changed.
    let ca = fs::read_to_string(&files.ca).unwrap();
    let another = Fleet::new();
    let other = fs::read_to_string(another.files("x").ca).unwrap();
    fs::write(&files.ca, ca + &other).unwrap();
    assert!(reloaded.poll().unwrap().is_some());
}

#[test]
fn bad_new_files_leave_the_old_credentials_and_are_told_of_once() {
    let fleet = Fleet::new();
    let files = one_file(&fleet);
    let mut reloaded = Reloaded::load(files.clone()).unwrap();
    let good = fs::read(&files.certificate).unwrap();
    let before = reloaded.current().not_after();
    let half = &good[..good.len() / 2];
    for (content, says) in [
        (&b""[..], "holds 0 private keys"),
        (half, "identity.pem"),
        (b"hello\n", "identity.pem"),
    ] {
        fs::write(&files.certificate, content).unwrap();
        let said = words(&reloaded.poll().unwrap_err());
        assert!(said.contains(says), "{said}");
        assert!(reloaded.poll().unwrap().is_none(), "it is told once");
        assert_eq!(reloaded.current().not_after(), before);
    }
    fs::remove_file(&files.certificate).unwrap();
    assert!(words(&reloaded.poll().unwrap_err()).contains("cannot read"));
    fs::write(&files.certificate, &good).unwrap();
    chmod(&files.certificate, 0o644);
    assert!(words(&reloaded.poll().unwrap_err()).contains("chmod 0600"));
    chmod(&files.certificate, 0o600);
    assert!(reloaded.poll().unwrap().is_some());
    assert!(reloaded.poll().unwrap().is_none());
}

#[test]
fn a_pair_of_two_files_that_is_half_replaced_is_not_taken() {
    let fleet = Fleet::new();
    let files = fleet.issue(AGENT);
    let mut reloaded = Reloaded::load(files.clone()).unwrap();
    let next = fleet.issue(ADMIN);
    fs::copy(&next.certificate, &files.certificate).unwrap();
    let said = words(&reloaded.poll().unwrap_err());
    assert!(said.contains("does not belong to the certificate"), "{said}");
    assert_eq!(reloaded.current().identity().to_string(), AGENT);
    fs::copy(&next.key, &files.key).unwrap();
    assert_eq!(reloaded.poll().unwrap().unwrap().identity().to_string(), ADMIN);
}

#[tokio::test]
async fn an_end_that_has_come_is_told_with_its_time() {
    let fleet = Fleet::new();
    let files = one_file(&fleet);
    renew(&fleet, &files, Duration::from_secs(1));
    let expired = async {
        loop {
            match Credentials::load(&files) {
                Err(error) => break error,
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let error = tokio::time::timeout(DEADLINE, expired).await.unwrap();
    let at = error.expired_at().unwrap();
    assert!(at <= UnixMillis::now(), "{at}");
    assert!(words(&error).contains("expired at"));
    fs::write(&files.certificate, "").unwrap();
    assert_eq!(Credentials::load(&files).unwrap_err().expired_at(), None);
}

#[tokio::test]
async fn what_is_not_valid_yet_is_taken_once_it_is_without_another_change() {
    let fleet = Fleet::new();
    let now = time::OffsetDateTime::now_utc();
    let mut reloaded = Reloaded::load(fleet.forge("own", &[AGENT], |_| {})).unwrap();
    fleet.forge("own", &[AGENT], |params| {
        params.not_before = now + Duration::from_secs(2)
    });
    assert!(words(&reloaded.poll().unwrap_err()).contains("not valid before"));
    let valid = async {
        while reloaded.poll().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, valid).await.unwrap();
}

#[tokio::test]
async fn a_root_that_ends_is_trusted_no_more_without_another_change() {
    let fleet = Fleet::new();
    let files = one_file(&fleet);
    let dir = tempfile::tempdir().unwrap();
    let domain = "example.org".parse().unwrap();
    Authority::init(dir.path(), domain, Duration::from_secs(2)).unwrap();
    let ending = fs::read_to_string(dir.path().join("ca.crt")).unwrap();
    let good = fs::read_to_string(&files.ca).unwrap();
    fs::write(&files.ca, ending.clone() + &good).unwrap();
    let mut reloaded = Reloaded::load(files.clone()).unwrap();
    assert_eq!(reloaded.current().ca_pem(), ending.clone() + &good);
    let ended = async {
        while reloaded.poll().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(reloaded.current().ca_pem(), good);
    assert!(reloaded.poll().unwrap().is_none());
    fs::write(&files.ca, ending).unwrap();
    let said = words(&reloaded.poll().unwrap_err());
    assert!(
        said.contains("expired at") && said.contains("get the new one"),
        "{said}"
    );
}

#[test]
fn one_file_is_never_seen_half_replaced() {
    let fleet = Fleet::new();
    let files = one_file(&fleet);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..100).for_each(|_| renew(&fleet, &files, 30 * DAY)));
        while !writer.is_finished() {
            Credentials::load(&files).unwrap();
        }
    });
}

#[test]
fn who_keeps_a_ca_open_sees_when_it_changes() {
    let fleet = Fleet::new();
    let before = Authority::stamp(fleet.path());
    fleet.issue(AGENT);
    assert_eq!(Authority::stamp(fleet.path()), before);
    rotation::begin(fleet.path(), 1000 * DAY).unwrap();
    assert_ne!(Authority::stamp(fleet.path()), before);
}
