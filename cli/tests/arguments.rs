//! The command line without a coordinator: help, usage errors, settings, completions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::process::Output;

use support::{Pki, bare, report};

fn run(arguments: &[&str]) -> Output {
    bare(arguments).output().unwrap()
}

#[test]
fn help_teaches_each_command() {
    for command in [
        "",
        "hypervisors",
        "hypervisors list",
        "hypervisors show",
        "hypervisors watch",
        "hypervisors create",
        "hypervisors destroy",
        "hypervisors expunge",
        "operations",
        "operations list",
        "operations show",
        "operations watch",
        "operations cancel",
        "operations resolve",
        "storage",
        "storage list",
        "storage show",
        "storage expand",
        "storage shrink",
        "storage expunge",
        "backups",
        "backups list",
        "backups create",
        "backups verify",
        "backups restore",
        "backups delete",
        "lock",
        "unlock",
        "locks",
        "status",
        "agents",
        "agents list",
        "agents lost",
        "agents revoke",
        "clients",
        "clients revoke",
        "clients revoked",
        "tokens",
        "tokens create",
        "tokens list",
        "tokens revoke",
        "audit",
        "proxy",
        "completions",
    ] {
        let mut arguments: Vec<_> = command.split_whitespace().collect();
        arguments.push("--help");
        let output = bare(&arguments).env("COLUMNS", "100").output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let name = format!("help {command}").trim_end().replace(' ', "_");
        insta::assert_snapshot!(name, String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &[] as &[&str],
        &["unheard"],
        &["hypervisors", "create"],
        &["hypervisors", "show", "a/b"],
        &["hypervisors", "create", "-rf"],
        &["hypervisors", "create", "hv1", "--reason", &"x".repeat(501)],
        &["operations", "show", "not-an-id"],
        &["agents", "lost", "hv7"],
        &["agents", "lost", "hv7", "--reason", " "],
        &["clients", "revoke", "alice", "--reason", "left"],
        &["tokens", "create", "--host", "hv7", "--expires", "8days"],
        &["tokens", "create"],
        &["audit", "--since", "yesterday"],
        &["hypervisors", "expunge", "hv7"],
        &["hypervisors", "expunge", "hv7", "--yes-expunge", "hv8"],
        &["storage", "expunge", "tank"],
        &["operations", "resolve", support::ID],
        &["operations", "list", "--limit", "0"],
        &["--timeout", "0s", "hypervisors", "list"],
        &["--output", "xml", "hypervisors", "list"],
        &["--output", "table", "--json", "hypervisors", "list"],
        &["operations", "cancel", "not-an-id"],
        &["operations", "cancel", support::ID, "--reason", &"x".repeat(501)],
        &["storage", "show", "a/b"],
        &["storage", "expand"],
        &["storage", "expand", "10GiB", "--pool", "../x"],
        &["storage", "expand", "10GiB", "--dry-run", "--detach"],
        &["storage", "shrink", "-1"],
        &["backups", "verify", "xyz"],
        &["backups", "verify", "--read", "0"],
        &["backups", "verify", "--read", "101"],
        &["backups", "restore", "latest"],
        &["backups", "restore", "latest", "--overwrite"],
        &[
            "backups",
            "restore",
            "latest",
            "--to",
            "/x",
            "--overwrite",
            "--path",
            "a",
        ],
        &["backups", "restore", "latest", "--path", "../etc"],
        &["backups", "delete"],
        &["backups", "delete", "beef", "--dry-run", "--yes"],
        &["lock", "hv1", "--for", "30m"],
        &["lock", "hv1", "--reason", "why"],
        &["lock", "hv1", "--for", "0s", "--reason", "why"],
        &["lock", "hv1", "--for", "8days", "--reason", "why"],
        &["lock", "hv1", "--for", "30m", "--reason", " "],
        &["lock", "a/b", "--for", "30m", "--reason", "why"],
        &["unlock"],
        &["proxy", "--listen", "example.org:1"],
        &["proxy", "--listen", "unix:/x", "--mode", "rw"],
    ] {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            report(&output)
        );
    }
}

#[test]
fn a_bad_size_or_backup_is_told_in_a_sentence() {
    for (arguments, sentence) in [
        (
            &["storage", "expand", "0"] as &[&str],
            "that is nothing; give a size greater than zero, as 10GiB",
        ),
        (&["storage", "shrink", "0.0GiB"], "that is nothing"),
        (
            &["storage", "expand", "ten"],
            "\"ten\" is not a size; write it as 10GiB, 1.5TB or 1048576",
        ),
        (&["storage", "expand", "10 parsecs"], "is not a size"),
        (&["storage", "shrink", "99999999PiB"], "is more than 16 EiB"),
        (
            &["backups", "verify", "xyz"],
            "\"xyz\" is not a backup's id: 4 to 64 hex digits, or \"latest\"",
        ),
        (
            &["backups", "restore", "latest", "--path", "a/../../b"],
            "is not a path in a pool",
        ),
    ] {
        let words = report(&run(arguments));
        assert!(
            words.starts_with("exit 2\n") && words.contains(sentence),
            "{words}"
        );
    }
}

#[test]
fn nothing_set_is_a_usage_error_that_says_every_way() {
    insta::assert_snapshot!(report(&run(&["hypervisors", "list"])));
}

#[test]
fn a_missing_named_configuration_is_a_usage_error() {
    let output = run(&["--config", "/nonexistent/hostler.toml", "hypervisors", "list"]);
    insta::assert_snapshot!(report(&output));
}

#[test]
fn an_unknown_key_in_the_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "coordinator = 'x'\ncolour = true\n").unwrap();
    let output = run(&["--config", path.to_str().unwrap(), "hypervisors", "list"]);
    assert_eq!(output.status.code(), Some(2));
    let words = report(&output);
    assert!(
        words.contains("colour") && words.contains("config.toml"),
        "{words}"
    );
}

#[test]
fn a_missing_key_file_and_a_loose_one_are_named() {
    let pki = Pki::new();
    let mut command = pki.hostler(
        "127.0.0.1:1",
        &["--key", "/nonexistent.key", "hypervisors", "list"],
    );
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        report(&output).contains("error: cannot read /nonexistent.key: "),
        "{}",
        report(&output)
    );

    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(pki.file("operator.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = pki
        .hostler("127.0.0.1:1", &["hypervisors", "list"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(report(&output).contains("chmod 0600"), "{}", report(&output));
}

#[test]
fn a_port_where_nobody_listens_exits_with_3_and_a_way_out() {
    let pki = Pki::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let output = pki.hostler(&free, &["hypervisors", "list"]).output().unwrap();
    insta::assert_snapshot!(support::steady(
        &report(&output),
        &free,
        Path::new("/nothing/to/replace")
    ));
}

#[test]
fn the_proxy_refuses_to_be_reached_by_others() {
    let pki = Pki::new();
    let output = pki
        .hostler("127.0.0.1:1", &["proxy", "--listen", "0.0.0.0:1312"])
        .output()
        .unwrap();
    insta::assert_snapshot!(report(&output));
}

#[test]
fn completions_need_no_settings() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8_lossy(&output.stdout);
        for command in ["hypervisors", "storage", "shrink", "backups", "restore", "cancel"] {
            assert!(script.contains(command), "{command} in {shell}");
        }
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut command = bare(&["completions", "bash"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{}", report(&output));
}
