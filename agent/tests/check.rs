//! `hostler-agent --check`, the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use tempfile::TempDir;

/// The folder of an agent on libvirt's test driver, with credentials and a configuration.
fn agent() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let authority = Authority::init(dir, "fleet.test".parse().unwrap(), DEFAULT_CA_LIFETIME).unwrap();
    let identity = "spiffe://fleet.test/agent/h1".parse().unwrap();
    let issued = authority.issue(&identity, &IssueOptions::default()).unwrap();
    issued.write(dir, "h1", Existing::Keep).unwrap();
    let config = format!(
        "coordinator = \"127.0.0.1:1312\"\nstate_dir = \"{0}/state\"\n\
         [tls]\nca = \"{0}/ca.crt\"\ncertificate = \"{0}/h1.crt\"\nkey = \"{0}/h1.key\"\n\
         [libvirt]\nuri = \"test:///default\"\n\
         [[hypervisor]]\nid = \"h1\"\nkind = \"host\"\nnetworks = [{{ name = \"default\" }}]\n",
        dir.display()
    );
    std::fs::write(dir.join("agent.toml"), config).unwrap();
    folder
}

fn check(dir: &Path, stdout: Stdio) -> Child {
    #[allow(clippy::disallowed_methods, reason = "the program is what is tested")]
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hostler-agent"));
    let config = dir.join("agent.toml");
    command.arg("--check").arg("--config").arg(config);
    command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_check_prints_what_the_agent_would_report_and_changes_nothing() {
    let folder = agent();
    let output = check(folder.path(), Stdio::piped()).wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("hypervisor    h1 is in service\n"), "{said}");
    assert!(said.ends_with("The configuration is good.\n"), "{said}");
    assert!(!folder.path().join("state").exists());
}

#[test]
fn a_check_that_nobody_reads_ends_quietly_and_one_that_cannot_be_written_says_so() {
    let folder = agent();
    let mut unread = check(folder.path(), Stdio::piped());
    drop(unread.stdout.take());
    let output = unread.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{said}");

    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = check(folder.path(), full.into()).wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("cannot write what was found: No space left"),
        "{said}"
    );
}
