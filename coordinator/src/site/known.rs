//! Whom this site knows by name, so that a mistyped name is told from one that is meant.
//!
//! It decides nothing about certificates. The invariant: whoever enrolled, is to enrol, was connected, or was revoked is
//! known; who is not may still have a certificate that was made by hand and never used.

use std::collections::BTreeSet;

use hostler_common::id::HostName;
use hostler_pki::Subject;
use thiserror::Error;

use crate::identity::Identities;
use crate::identity::tokens::TokensError;
use crate::registry::Registry;

/// Names that a sentence proposes.
const NAMED_AT_MOST: usize = 5;

/// Why a name is not taken.
#[derive(Debug, Error)]
pub enum UnknownError {
    /// Nobody is called so.
    #[error("no {} is known here by the name {name}{}", kind_of(subject), proposal(near))]
    Unknown {
        /// Who was meant.
        subject: Box<Subject>,
        /// As people write it.
        name: String,
        /// Names that are like it.
        near: Vec<String>,
    },
    /// Tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

fn kind_of(subject: &Subject) -> &'static str {
    match subject {
        Subject::Agent { .. } => "host",
        Subject::Client { .. } => "client",
        Subject::Coordinator { .. } => "coordinator",
    }
}

/// Reads on after a sentence.
pub(super) fn proposal(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("; names like it: {}", near.join(", ")),
    }
}

/// A name as people write it: of a host its own, of a client ROLE/NAME.
fn name_of(subject: &Subject) -> String {
    match subject {
        Subject::Client { role, name } => format!("{role}/{name}"),
        Subject::Agent { host: name } | Subject::Coordinator { name } => name.to_string(),
    }
}

/// Returns when something is known of `subject`. Of coordinators nothing is asked here: they are refused otherwise.
///
/// # Errors
/// When nothing is, with names that are like it; or when the store fails.
pub async fn require(
    registry: &Registry,
    identities: &Identities,
    subject: &Subject,
) -> Result<(), UnknownError> {
    if matches!(subject, Subject::Coordinator { .. }) {
        return Ok(());
    }
    let mut known = identities.known.subjects();
    known.extend(
        identities
            .revocations
            .all()
            .into_iter()
            .map(|record| record.identity.subject),
    );
    let agent = |host: HostName| Subject::Agent { host };
    known.extend(hosts(registry).into_iter().map(agent));
    let tokens = identities.tokens.all().await?;
    known.extend(tokens.into_iter().map(|token| agent(token.host)));
    // It may be connected, and not noted yet.
    if known.contains(subject) || identities.connections.newest(subject).is_some() {
        return Ok(());
    }
    let (name, kind) = (name_of(subject), kind_of(subject));
    let others = known.iter().filter(|known| kind_of(known) == kind).map(name_of);
    Err(UnknownError::Unknown {
        subject: Box::new(subject.clone()),
        near: near(&name, others),
        name,
    })
}

/// Every host that has something in the fleet, or had a session since the coordinator started.
pub(super) fn hosts(registry: &Registry) -> BTreeSet<HostName> {
    let mut hosts: BTreeSet<_> = registry.seen().into_iter().map(|seen| seen.host).collect();
    hosts.extend(registry.map_hypervisors(|view| view.record.host.clone()));
    hosts.extend(registry.map_pools(|view| view.record.host.clone()));
    hosts.extend(registry.operations().iter().map(|record| record.host.clone()));
    hosts
}

/// Those of `known` that somebody may have meant by `name`, the likeliest first.
pub(super) fn near(name: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let names: BTreeSet<String> = known.collect();
    let mut near: Vec<_> = names
        .into_iter()
        .map(|known| (strsim::osa_distance(name, &known), known))
        .filter(|(distance, known)| *distance <= 1 + name.len() / 4 || known.starts_with(name))
        .collect();
    near.sort_unstable();
    near.into_iter()
        .take(NAMED_AT_MOST)
        .map(|(_, known)| known)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_mistypes_a_name_is_told_those_that_are_like_it() {
        let known = || {
            ["hv1", "hv17", "node-a.example.org", "operator/alice"]
                .map(str::to_owned)
                .into_iter()
        };
        assert_eq!(near("hv7", known()), ["hv1", "hv17"]);
        assert_eq!(near("node-a", known()), ["node-a.example.org"]);
        assert_eq!(near("operator/alcie", known()), ["operator/alice"]);
        assert_eq!(near("backup", known()), Vec::<String>::new());
    }
}
