//! The doors through which fuzzing reaches what reads foreign text here. No shipped program has them (feature
//! `fuzzing`).
//!
//! It adds nothing: each door leads to the parsers that the agent uses. What comes back are the sentences that would be
//! told; whoever calls holds their length against a bound.

use std::path::Path;

use hostler_common::config::{ConfigError, parse};

use crate::config::AgentConfig;

/// What libvirt describes, and definitions that a site wrote: domains, volumes, devices, networks, pools.
pub fn libvirt_xml(xml: &str) -> Vec<String> {
    let mut said = crate::libvirt::fuzzed::read(xml);
    said.extend(crate::hypervisor::fuzzed::definitions(xml));
    said
}

/// A site's template for guests; the XML that it makes, when it makes any.
///
/// # Errors
/// With the sentence why not.
pub fn guest_template(source: &str) -> Result<String, String> {
    crate::hypervisor::fuzzed::template(source)
}

/// The built-in template with `text` wherever a configuration may bring text of its own.
pub fn domain_with(text: &str) -> Result<String, String> {
    crate::hypervisor::fuzzed::domain_with(text)
}

/// What programs and the kernel print: btrfs, blkid, wipefs, restic, systemctl, docker, mountinfo, swaps, cpuinfo.
pub fn tool_output(text: &str) -> Vec<String> {
    let mut said = crate::storage::fuzzed::read(text);
    said.extend(crate::backup::fuzzed::read(text));
    said.extend(crate::hypervisor::fuzzed::output(text));
    crate::inventory::fuzzed::read(text);
    drop(crate::mount_table::parse_mounts(text));
    drop(crate::mount_table::parse_swaps(text));
    crate::mount_table::parse_device(text);
    said
}

/// The agent's configuration file.
///
/// # Errors
/// When it is not one.
pub fn config(text: &str) -> Result<AgentConfig, ConfigError> {
    parse(Path::new("agent.toml"), text, AgentConfig::check)
}
