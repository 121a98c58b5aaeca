//! `hostler man`: the pages that packages ship.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(clippy::disallowed_methods, reason = "a test starts the program under test")]

use std::path::Path;
use std::process::{Command, Output};

fn man(dir: &Path) -> Output {
    let mut hostler = Command::new(env!("CARGO_BIN_EXE_hostler"));
    hostler
        .args(["man", "--dir"])
        .arg(dir)
        .env_clear()
        .output()
        .unwrap()
}

#[test]
fn every_command_has_a_manual_page_without_settings_or_a_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let output = man(dir.path());
    assert!(output.status.success(), "{output:?}");
    let pages: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in ["hostler.1", "hostler-storage-expand.1", "hostler-lock.1"] {
        assert!(
            pages.iter().any(|name| name == page),
            "{page} is not in {pages:?}"
        );
    }
    for unwanted in ["help", "hostler-man"] {
        assert!(!pages.iter().any(|name| name.contains(unwanted)), "{pages:?}");
    }
    let expand = std::fs::read_to_string(dir.path().join("hostler-storage-expand.1")).unwrap();
    assert!(expand.contains("dry\\-run"), "{expand}");
}

#[test]
fn what_is_for_packages_is_offered_by_no_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let mut hostler = Command::new(env!("CARGO_BIN_EXE_hostler"));
        let output = hostler.args(["completions", shell]).env_clear().output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            !script.contains("manual pages") && !script.contains("__man"),
            "{shell}: {script}"
        );
        assert!(
            script.contains("expand") && script.contains("coordinator"),
            "{shell}: {script}"
        );
    }
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let output = man(Path::new("/no/such/folder"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("cannot write the manual pages"),
        "{said}"
    );
}
