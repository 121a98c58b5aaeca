//! The door of fuzzing to definitions of networks and pools, and to what systemd and compose say.

use super::activation::{ActivationState, compose_state, unit_state};
use super::definition_problem;

pub(in super::super) fn definitions(xml: &str) -> Vec<String> {
    let problems = ["network", "pool"].map(|tag| definition_problem(xml, tag, "default"));
    problems.into_iter().flatten().collect()
}

pub(in super::super) fn states(text: &str) -> Vec<String> {
    let (services, running) = text.split_once('\0').unwrap_or((text, ""));
    let states = [
        unit_state("a.service", text.trim()),
        compose_state(services, running),
    ];
    let details = states.into_iter().map(|state| match state {
        ActivationState::Partial { detail } => Some(detail),
        ActivationState::Active | ActivationState::Inactive => None,
    });
    details.flatten().collect()
}
