//! The example configuration and its page name every key that the client takes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::process::Output;

use support::bare;

const PAGE: &str = include_str!("../../docs/configuration.md");

fn list(config: &Path) -> Output {
    bare(&["hypervisors", "list", "--config"])
        .arg(config)
        .output()
        .unwrap()
}

#[test]
fn the_example_is_taken_and_only_its_certificates_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, include_str!("../../deploy/examples/config.toml")).unwrap();
    let output = list(&config);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains(&folder.path().join("ca.crt").display().to_string()),
        "{said}"
    );
}

#[test]
fn the_example_and_the_page_name_every_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no_such_key = 1\n").unwrap();
    let refusal = String::from_utf8(list(file.path()).stderr).unwrap();
    let (_, expected) = refusal
        .rsplit_once(", expected")
        .unwrap_or_else(|| panic!("{refusal}"));
    let (expected, _) = expected.split_once('\n').unwrap_or((expected, ""));
    let keys: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    assert!(!keys.is_empty(), "{refusal}");
    for key in keys {
        let example = include_str!("../../deploy/examples/config.toml");
        assert!(
            example.lines().any(|line| line.starts_with(&format!("{key} = "))),
            "{key}"
        );
        assert!(
            PAGE.contains(&format!("`{key}`")),
            "{key} is missing in docs/configuration.md"
        );
    }
}
