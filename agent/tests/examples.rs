//! The example configuration and its page name every key and say the truth about defaults.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;

use hostler_agent::config::{AgentConfig, GuestConfig, HostConfig, HypervisorConfig};
use hostler_common::error::Chain;

const EXAMPLE: &str = include_str!("../../deploy/examples/agent.toml");
const PAGE: &str = include_str!("../../docs/configuration.md");

const MINIMAL: &str = "\
coordinator = 'c.example.org'
state_dir = '/s'
tls = { ca = '/c', certificate = '/d', key = '/k' }
storage = { path = '/p', backup = { repository = '/r', password_file = '/w' } }

[[hypervisor]]
kind = 'host'
id = 'h'
networks = [{ name = 'n' }]

[[hypervisor]]
kind = 'guest'
id = 'g'
cpu = 1
memory_mb = 1
pool = 'p'
base_image = 'b'
";

fn load(text: &str) -> Result<AgentConfig, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    AgentConfig::load(file.path()).map_err(|error| Chain(&error).to_string())
}

fn hypervisors(config: &AgentConfig) -> (&HostConfig, &GuestConfig) {
    match &config.hypervisors[..] {
        [HypervisorConfig::Host(host), HypervisorConfig::Guest(guest)] => (host, guest),
        other => panic!("a host and a guest were expected: {other:?}"),
    }
}

/// The key of a line, as `cpu` of `cpu = 4`.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let plain = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    (plain && !key.is_empty()).then_some(key)
}

#[test]
fn the_example_loads_and_the_defaults_that_it_shows_are_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/agent.toml");
    let example = AgentConfig::load(&path).unwrap();
    let minimal = load(MINIMAL).unwrap();
    assert_eq!((&example.log, &example.run_dir), (&minimal.log, &minimal.run_dir));
    assert_eq!(format!("{:?}", example.libvirt), format!("{:?}", minimal.libvirt));
    assert_eq!(example.gpus[0].brand, example.gpus[1].brand, "the default brand");
    let (pool, least) = (
        example.storage.as_ref().unwrap(),
        minimal.storage.as_ref().unwrap(),
    );
    assert_eq!(
        (&pool.pool, pool.backend, pool.reserve),
        (&least.pool, least.backend, least.reserve)
    );
    let (backup, least) = (pool.backup.as_ref().unwrap(), least.backup.as_ref().unwrap());
    assert_eq!((backup.read_back, backup.keep), (least.read_back, least.keep));
    let of = |config: &AgentConfig| {
        let (host, guest) = hypervisors(config);
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            host.domain_type,
            host.activation_timeout,
            host.readiness_timeout,
            host.drain_wait,
            host.on_running_domains,
            guest.domain_type,
            guest.readiness_timeout
        )
    };
    assert_eq!(of(&example), of(&minimal));
}

#[test]
fn every_alternative_in_the_example_loads_too() {
    let mut lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut alternatives = 0;
    for at in 0..lines.len() {
        let Some(alternative) = lines[at].strip_prefix('#').filter(|line| key_of(line).is_some()) else {
            continue;
        };
        let key = key_of(alternative);
        let replaced = (0..at).rev().find(|line| key_of(lines[*line]) == key).unwrap();
        let before = std::mem::replace(&mut lines[replaced], alternative);
        load(&lines.join("\n")).unwrap_or_else(|error| panic!("{alternative}: {error}"));
        lines[replaced] = before;
        alternatives += 1;
    }
    assert!(alternatives >= 6, "{alternatives} were found");
}

#[test]
fn the_example_and_the_page_name_every_key() {
    let host = "[[hypervisor]]\nkind = 'host'\n";
    let guest = "[[hypervisor]]\nkind = 'guest'\n";
    for text in [
        "no_such_key = 1",
        "tls = { no_such_key = 1 }",
        "libvirt = { no_such_key = 1 }",
        "gpu = [{ no_such_key = 1 }]",
        "shared_storage = [{ no_such_key = 1 }]",
        "storage = { no_such_key = 1 }",
        "storage = { backend = 'no_such_key' }",
        "storage = { backup = { no_such_key = 1 } }",
        "storage = { backup = { keep = { no_such_key = 1 } } }",
        &format!("{host}no_such_key = 1"),
        &format!("{host}networks = [{{ no_such_key = 1 }}]"),
        &format!("{host}pools = [{{ no_such_key = 1 }}]"),
        &format!("{host}free_disk = [{{ no_such_key = 1 }}]"),
        &format!("{host}activation = {{ type = 'no_such_key' }}"),
        &format!("{host}activation = {{ type = 'exec', no_such_key = 1 }}"),
        &format!("{host}activation = {{ type = 'systemd', no_such_key = 1 }}"),
        &format!("{host}activation = {{ type = 'compose', no_such_key = 1 }}"),
        &format!("{host}readiness = {{ type = 'tcp', no_such_key = 1 }}"),
        &format!("{host}readiness = {{ type = 'exec', no_such_key = 1 }}"),
        &format!("{host}on_running_domains = 'no_such_key'"),
        &format!("{host}domain_type = 'no_such_key'"),
        &format!("{guest}no_such_key = 1"),
        &format!("{guest}readiness = {{ type = 'no_such_key' }}"),
        &format!("{guest}readiness = {{ type = 'serial', no_such_key = 1 }}"),
    ] {
        let refusal = load(text).unwrap_err();
        let (_, expected) = refusal
            .rsplit_once(", expected")
            .unwrap_or_else(|| panic!("{text}: {refusal}"));
        // The lines after it say where.
        let expected = expected.lines().next().unwrap_or_default();
        let words: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        assert!(!words.is_empty(), "{text}: {refusal}");
        for word in words {
            let whole = |line: &str| {
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .any(|w| w == word)
            };
            assert!(EXAMPLE.lines().any(whole), "{word} is missing in the example");
            let named = [
                format!("`{word}`"),
                format!("`[{word}]`"),
                format!("`[[{word}]]`"),
            ];
            assert!(
                named.iter().any(|name| PAGE.contains(name)),
                "{word} is missing in docs/configuration.md"
            );
        }
    }
}
