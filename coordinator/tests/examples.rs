//! The example configuration and its page name every key and say the truth about defaults.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;

use hostler_common::error::Chain;
use hostler_coordinator::config::Config;

const EXAMPLE: &str = include_str!("../../deploy/examples/coordinator.toml");
const PAGE: &str = include_str!("../../docs/configuration.md");

fn load(text: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load(file.path()).map_err(|error| Chain(&error).to_string())
}

#[test]
fn the_example_loads_and_what_it_shows_are_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/coordinator.toml");
    let example = Config::load(&path).unwrap();
    let tls = &example.tls;
    let ca_dir = &example.enrolment.as_ref().unwrap().ca_dir;
    let short = format!(
        "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n[enrolment]\nca_dir = {ca_dir:?}\n",
        tls.ca, tls.certificate, tls.key
    );
    let defaults = load(&short).unwrap();
    assert_eq!(format!("{example:?}"), format!("{defaults:?}"));
}

#[test]
fn the_example_and_the_page_name_every_key() {
    for table in ["", "[tls]", "[enrolment]", "[sessions]", "[operations]"] {
        let refusal = load(&format!("{table}\nno_such_key = 1\n")).unwrap_err();
        let (_, expected) = refusal
            .rsplit_once(", expected")
            .unwrap_or_else(|| panic!("{table}: {refusal}"));
        let keys: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty(), "{table}: {refusal}");
        for key in keys {
            let shown = |line: &str| line.starts_with(&format!("{key} = ")) || line == format!("[{key}]");
            assert!(
                EXAMPLE.lines().any(shown),
                "{table} {key} is missing in the example"
            );
            let named = [format!("`{key}`"), format!("`[{key}]`")];
            assert!(
                named.iter().any(|name| PAGE.contains(name)),
                "{table} {key} is missing in docs/configuration.md"
            );
        }
    }
}
