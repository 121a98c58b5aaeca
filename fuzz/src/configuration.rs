//! The configuration files of the agent, the coordinator and the client.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use hostler_common::error::Chain;
use hostler_coordinator::config::Config;

use crate::said;

/// # Panics
/// When a file is taken that no clock could follow, or a sentence is too long.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match hostler_agent::fuzzing::config(&text) {
        Ok(config) => addable(&[config.libvirt.call_timeout]),
        Err(error) => said::bounded(&Chain(&error).to_string()),
    }
    match Config::parse(Path::new("coordinator.toml"), &text) {
        Ok(config) => {
            let operations = &config.operations;
            addable(&[
                config.sessions.heartbeat,
                config.drain_timeout,
                operations.lease,
                operations.host_patience,
                operations.resume_patience,
                operations.take_patience,
                operations.keep_age,
            ]);
        }
        Err(error) => said::bounded(&Chain(&error).to_string()),
    }
    let variables = [("HOSTLER_TIMEOUT", OsString::from(text.as_ref()))];
    for variables in [&variables[..0], &variables] {
        if let Err(sentence) = hostler::fuzzing::settings(&text, variables) {
            said::bounded(&sentence);
        }
    }
}

/// Sums of them and a clock must not overflow.
fn addable(durations: &[Duration]) {
    let sum = durations
        .iter()
        .try_fold(Duration::ZERO, |sum, one| sum.checked_add(*one));
    let end = sum.and_then(|sum| Instant::now().checked_add(sum.checked_mul(4)?));
    assert!(end.is_some(), "{durations:?} overflow the clock");
}
