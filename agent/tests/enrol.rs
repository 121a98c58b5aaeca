//! `hostler-agent enrol`, the real program, as far as it goes without a coordinator: what is said before anything is sent.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use hostler_pki::{EnrolToken, Fingerprint};
use tempfile::TempDir;

/// A token of a coordinator that is not there.
fn token() -> String {
    let token = EnrolToken::new("h1".parse().unwrap(), Fingerprint::from_bytes([7; 32])).unwrap();
    token.to_word().to_string()
}

fn enrol(dir: &Path, arguments: &[&str], stdin: &str) -> Output {
    agent(dir, &["enrol"], arguments, stdin)
}

/// The program with the host's configuration named between the two.
fn agent(dir: &Path, before: &[&str], after: &[&str], stdin: &str) -> Output {
    #[allow(clippy::disallowed_methods, reason = "the program is what is tested")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler-agent"));
    let mut child = command
        .args(before)
        .arg("--config")
        .arg(dir.join("agent.toml"))
        .args(after)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// A host with this coordinator, and nothing else.
fn host(coordinator: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().display();
    let config = format!(
        "coordinator = \"{coordinator}\"\nstate_dir = \"{root}/state\"\n[tls]\nca = \"{root}/identity/ca.crt\"\n\
         certificate = \"{root}/identity/agent.pem\"\nkey = \"{root}/identity/agent.pem\"\n"
    );
    std::fs::write(dir.path().join("agent.toml"), config).unwrap();
    dir
}

#[test]
fn a_typo_in_the_token_is_said_before_anything_is_sent_and_the_token_is_not() {
    let dir = host("127.0.0.1:1");
    let mut typo = token();
    let end = typo.pop().unwrap();
    typo.push(if end == 'a' { 'b' } else { 'a' });
    for (arguments, stdin) in [
        (vec!["--token", typo.as_str()], ""),
        (vec!["--token-file", "-"], typo.as_str()),
    ] {
        let output = enrol(dir.path(), &arguments, stdin);
        let said = words(&output);
        assert!(!output.status.success(), "{said}");
        assert!(
            said.contains("nothing was sent") && said.contains("copy it again"),
            "{said}"
        );
        assert!(!said.contains(&typo[12..30]), "{said}");
        assert!(!dir.path().join("identity").exists());
    }
}

#[test]
fn the_configuration_may_be_named_before_or_after_the_command_and_a_check_goes_alone() {
    let dir = host("coordinator.example.org:1312");
    for (before, after) in [
        (vec!["enrol"], vec!["--token-file", "-"]),
        (vec![], vec!["enrol", "--token-file", "-"]),
    ] {
        let said = words(&agent(dir.path(), &before, &after, &token()));
        assert!(said.contains("give it as --coordinator"), "{said}");
    }
    let checked = agent(
        dir.path(),
        &[],
        &["--check", "enrol", "--token-file", "-"],
        &token(),
    );
    let said = words(&checked);
    assert!(
        !checked.status.success() && said.contains("one after the other"),
        "{said}"
    );
    assert!(!dir.path().join("identity").exists());
}

#[test]
fn a_coordinator_that_is_not_there_is_named_and_nothing_is_left_of_the_try() {
    let dir = host("127.0.0.1:1");
    let token = token();
    let output = enrol(
        dir.path(),
        &[
            "--token-file",
            "-",
            "--coordinator",
            "127.0.0.1:1",
            "--wait",
            "0s",
        ],
        &token,
    );
    let said = words(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
    assert!(!said.contains(&token[12..30]), "{said}");
    let left = std::fs::read_dir(dir.path().join("identity")).unwrap().count();
    assert_eq!(left, 0, "{said}");
}

#[test]
fn a_host_that_does_not_know_its_coordinator_is_told_what_to_give() {
    let dir = host("coordinator.example.org:1312");
    let output = enrol(dir.path(), &["--token-file", "-"], &token());
    let said = words(&output);
    assert!(
        !output.status.success() && said.contains("--coordinator"),
        "{said}"
    );
    assert!(!dir.path().join("identity").exists());
}

#[test]
fn a_token_is_asked_for_once_and_a_bad_configuration_is_said_first() {
    let dir = host("127.0.0.1:1");
    for arguments in [vec![], vec!["--token", "a", "--token-file", "b"]] {
        let output = enrol(dir.path(), &arguments, "");
        assert!(words(&output).contains("--token-file"), "{}", words(&output));
        assert!(!output.status.success());
    }
    std::fs::write(dir.path().join("agent.toml"), "what = 5\n").unwrap();
    let output = enrol(dir.path(), &["--token-file", "-"], &token());
    let said = words(&output);
    assert!(said.contains("what") && !said.contains(&token()[..9]), "{said}");
    assert!(!dir.path().join("identity").exists());
}

#[test]
fn a_token_is_read_however_an_editor_left_it_and_nothing_is_called_nothing() {
    let dir = host("127.0.0.1:1");
    let file = dir.path().join("token");
    for (before, after) in [("\u{feff}", "\r\n"), ("  \n", " \t\n\n"), ("", "")] {
        std::fs::write(&file, format!("{before}{}{after}", token())).unwrap();
        let output = enrol(
            dir.path(),
            &["--token-file", file.to_str().unwrap(), "--wait", "0s"],
            "",
        );
        let said = words(&output);
        assert!(
            said.contains("is for h1") && said.contains("nothing listens"),
            "{said}"
        );
    }
    std::fs::write(&file, "\u{feff}\n").unwrap();
    for (from, named) in [
        ("-", "standard input holds no token"),
        (file.to_str().unwrap(), "holds no token"),
    ] {
        let said = words(&enrol(dir.path(), &["--token-file", from], ""));
        assert!(said.contains(named), "{said}");
    }
    let said = words(&enrol(dir.path(), &["--token", &token(), "--wait", "0s"], ""));
    assert!(said.contains("--token shows the token"), "{said}");
}
