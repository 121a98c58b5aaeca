//! The door of fuzzing to definitions, templates, and what systemd, compose and the kernel say of a hypervisor.

use super::{domain_type, guest, host};

pub(crate) fn definitions(xml: &str) -> Vec<String> {
    let mut said = host::fuzzed::definitions(xml);
    said.extend(guest::fuzzed::definition(xml));
    said
}

pub(crate) fn template(source: &str) -> Result<String, String> {
    guest::fuzzed::template(source)
}

pub(crate) fn domain_with(text: &str) -> Result<String, String> {
    guest::fuzzed::domain_with(text)
}

pub(crate) fn output(text: &str) -> Vec<String> {
    domain_type::virtualises(text);
    host::fuzzed::states(text)
}
