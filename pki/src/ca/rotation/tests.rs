//! A step that dies between any two of its changes.

use std::path::Path;

use super::*;
use crate::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use crate::identity::Identity;

const DAY: Duration = Duration::from_secs(86_400);

fn fresh() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Authority::init(dir.path(), "example.org".parse().unwrap(), DEFAULT_CA_LIFETIME).unwrap();
    dir
}

/// The CA opens, and what it signs is accepted by whoever trusts its `ca.crt`. Returns the root that signed.
fn works(dir: &Path) -> String {
    let authority = Authority::open(dir).unwrap();
    let identity: Identity = "spiffe://example.org/agent/node-1".parse().unwrap();
    let issued = authority.issue(&identity, &IssueOptions::default()).unwrap();
    let leaf = dir.join("leaf.test");
    std::fs::write(&leaf, issued.certificate_pem).unwrap();
    let chain = files::read_certificates(&leaf).unwrap();
    let roots = files::read_roots(&dir.join("ca.crt")).unwrap();
    verify::check_own(&roots, &chain[0], &[], UnixTime::now()).unwrap();
    let signed_by = crate::certificate::CertificateFacts::read(&chain[0])
        .unwrap()
        .issuer;
    assert_eq!(signed_by, dir::roots(dir).unwrap()[0].name);
    signed_by
}

/// Brings a fresh CA to where `step` begins.
fn before(step: Stage) -> tempfile::TempDir {
    let dir = fresh();
    if step != Stage::Begun {
        begin(dir.path(), 1000 * DAY).unwrap();
    }
    if step == Stage::Steady {
        switch(dir.path()).unwrap();
    }
    dir
}

fn plan(dir: &Path, step: Stage) -> Vec<Change> {
    let now = status(dir).unwrap();
    match step {
        Stage::Begun => plan_begin(&now, 1000 * DAY).unwrap(),
        Stage::Switched => plan_switch(&now).unwrap(),
        _ => plan_finish(&now, Some(&now.roots[1].id.clone())).unwrap(),
    }
}

fn run(dir: &Path, step: Stage) -> Did {
    match step {
        Stage::Begun => begin(dir, 1000 * DAY).unwrap(),
        Stage::Switched => switch(dir).unwrap(),
        _ => {
            let now = status(dir).unwrap();
            let old = now.old().map(|root| root.id.clone());
            finish(dir, old.as_deref()).unwrap()
        }
    }
}

#[test]
fn a_step_that_dies_between_any_two_changes_leaves_a_ca_that_works_and_is_done_again() {
    for (step, changes) in [(Stage::Begun, 2), (Stage::Switched, 3), (Stage::Steady, 2)] {
        for died_after in 0..=changes {
            let dir = before(step);
            let dir = dir.path();
            let roots_before = status(dir).unwrap().roots;
            let signed_before = works(dir);
            let planned = plan(dir, step);
            assert_eq!(planned.len(), changes, "{step:?}");
            planned[..died_after]
                .iter()
                .for_each(|change| change.apply().unwrap());

            let cut = status(dir).unwrap();
            let signed = works(dir);
            if step != Stage::Switched {
                assert_eq!(signed, signed_before);
            }
            // As a death in the middle of a change leaves it; process 1 lives, and did not write it.
            for half in [
                "ca.crt.1.new",
                "ca.key.2026-01-01.00000000.1.new",
                "next.key.1.new",
            ] {
                std::fs::write(dir.join(half), "half").unwrap();
            }
            run(dir, step);
            let now = status(dir).unwrap();
            assert_eq!(
                now.stage, step,
                "after {died_after} changes, when it was {:?}",
                cut.stage
            );
            assert_eq!(now.roots.len(), if step == Stage::Steady { 1 } else { 2 });
            works(dir);
            assert_eq!(run(dir, step), Did::Before);
            // Nothing has gone: each root that was there is trusted yet or kept, and so is its key.
            for root in &roots_before {
                let is_there = now
                    .roots
                    .iter()
                    .any(|other| other.fingerprint == root.fingerprint);
                assert!(is_there || is_kept(&now, "ca.crt", root));
            }
            if step != Stage::Begun {
                assert_eq!(
                    now.kept.iter().filter(|path| is_named(path, "ca.key.")).count(),
                    1
                );
            }
            assert!(!entries(dir).any(|path| path.extension().is_some_and(|ending| ending == "new")));
        }
    }
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let says = |dir: &Path, part: &str| {
        let said = hostler_common::error::Chain(&status(dir).unwrap_err()).to_string();
        assert!(said.contains(part), "{part} is not in {said}");
    };
    let (dir, other) = (before(Stage::Switched), before(Stage::Switched));
    std::fs::copy(other.path().join("next.key"), dir.path().join("next.key")).unwrap();
    says(dir.path(), "next.key belongs to no certificate in ca.crt");
    let dir = fresh();
    std::fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
    says(dir.path(), "ca.key belongs to no certificate in ca.crt");
    let dir = fresh();
    let three = [dir.path(), other.path()].map(|dir| std::fs::read_to_string(dir.join("ca.crt")).unwrap());
    std::fs::write(dir.path().join("ca.crt"), three.concat()).unwrap();
    says(dir.path(), "holds 3 certificates");
}

#[test]
fn two_at_a_time_are_kept_apart() {
    let dir = fresh();
    let held = alone(dir.path()).unwrap();
    assert!(matches!(begin(dir.path(), DAY), Err(RotationError::Busy { .. })));
    drop(held);
    assert_eq!(begin(dir.path(), DAY).unwrap(), Did::Now);
}
