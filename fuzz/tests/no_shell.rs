//! No shell anywhere: the product starts programs in one file, by path and arguments, and names no shell.
//!
//! clippy.toml refuses other ways to start one. This holds the sources against whoever would allow them, and against a
//! program that is a shell.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose programs are shipped.
const SHIPPED: [&str; 5] = ["agent", "cli", "common", "coordinator", "pki"];

/// The one place that starts programs, and the one that blocks.
const EXCEPTIONS: [&str; 2] = ["agent/src/command.rs", "agent/src/blocking.rs"];

/// Shells, what hands words to one, and its option, as they would stand in a source.
const SHELLS: [&str; 9] = [
    "\"sh\"",
    "\"bash\"",
    "\"dash\"",
    "\"env\"",
    "\"/bin/sh\"",
    "\"/bin/bash\"",
    "\"-c\"",
    "sh -c",
    "libc::system",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every source of what is shipped with its path from the top, without its tests.
fn sources() -> Vec<(String, String)> {
    let mut folders: Vec<_> = SHIPPED.map(|name| top().join(name).join("src")).into();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                let name = path.strip_prefix(top()).unwrap().display().to_string();
                sources.push((name, code));
            }
        }
    }
    assert!(sources.len() > 100, "the sources are not where they were");
    sources
}

#[test]
fn programs_start_in_one_file() {
    for (name, code) in sources() {
        let starts = [
            "process::Command",
            "process::{Command",
            "CommandExt",
            "disallowed_methods",
            "posix_spawn",
            "execv",
        ];
        let found: Vec<_> = starts.into_iter().filter(|start| code.contains(start)).collect();
        assert!(
            found.is_empty() || EXCEPTIONS.contains(&name.as_str()),
            "{name} has {found:?}: programs start in agent/src/command.rs"
        );
    }
    let bans = fs::read_to_string(top().join("clippy.toml")).unwrap();
    for ban in ["std::process::Command::new", "tokio::process::Command::new"] {
        assert!(bans.contains(ban), "clippy.toml no longer refuses {ban}");
    }
}

#[test]
fn no_source_names_a_shell() {
    for (name, code) in sources() {
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let found: Vec<_> = SHELLS.into_iter().filter(|shell| line.contains(shell)).collect();
            assert!(found.is_empty(), "{name} has {found:?} in: {line}");
        }
    }
}
