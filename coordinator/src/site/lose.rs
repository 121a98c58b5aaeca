//! A host that will not come back, by the word of a person: what it held is released.
//!
//! Locks of clients on what the host has are theirs and stay. Invariant: nothing is released while the host has a session.
//! Should it come back all the same, its journal is told that its operations have ended.

use hostler_common::id::{HostName, OperationId, ResourceName};
use thiserror::Error;

use super::known;
use crate::operation::engine::{Engine, EngineError};
use crate::operation::record::OperationRecord;
use crate::operation::state::{Event, Operator};
use crate::registry::Registry;
use crate::session::registry::Sessions;

/// Why nothing more was released. What was released before stays so.
#[derive(Debug, Error)]
pub enum LoseError {
    /// It is alive.
    #[error(
        "the agent of host {host} is connected from {from}: what is alive is not lost. Stop it first, or use `hostler operations cancel` and `hostler agents revoke {host}`"
    )]
    Connected {
        /// The host.
        host: HostName,
        /// Where its session comes from.
        from: String,
    },
    /// Nothing is known of it.
    #[error(
        "nothing is known of a host {host}, and nothing of it can be released{}",
        known::proposal(near)
    )]
    Unknown {
        /// The host.
        host: HostName,
        /// Names that are like it.
        near: Vec<String>,
    },
    /// The store failed, or holds what cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Who declares it, and why.
#[derive(Debug, Clone)]
pub struct Declared<'a> {
    /// The URI of its certificate.
    pub by: &'a str,
    /// In its own words.
    pub reason: &'a str,
}

/// Ends what `host` has not ended, what waits first, and what needs attention there. Repeating it ends what came since.
///
/// # Errors
/// When the host has a session, is not known, or the store fails.
pub async fn lose(
    engine: &Engine,
    registry: &Registry,
    sessions: &Sessions,
    host: &HostName,
    declared: &Declared<'_>,
) -> Result<Vec<OperationRecord>, LoseError> {
    let is_of_host = |record: &OperationRecord| record.host == *host && record.operator() == Operator::Agent;
    let unended = registry.operations();
    let unended = unended.iter().filter(|record| is_of_host(record));
    // The newest first: what waits must not begin when what is before it ends.
    let mut ids: Vec<OperationId> = unended.map(|record| record.id).collect();
    let resources = resources_of(registry, host);
    if resources.is_empty() && ids.is_empty() && !registry.seen().iter().any(|seen| seen.host == *host) {
        let hosts = known::hosts(registry).into_iter().map(|host| host.to_string());
        return Err(LoseError::Unknown {
            host: host.clone(),
            near: known::near(host.as_str(), hosts),
        });
    }
    let attentions = registry.attentions().into_iter();
    ids.extend(
        attentions
            .filter(|(resource, _)| resources.contains(resource))
            .map(|(_, id)| id),
    );
    refuse_alive(sessions, host)?;
    let said = format!(
        "host {host} was declared lost by {}: {}",
        declared.by, declared.reason
    );
    let mut ended = Vec::new();
    for id in ids {
        refuse_alive(sessions, host)?;
        match engine.apply(id, None, Event::HostLost, |_| said.clone()).await {
            Ok(record) => ended.push(record),
            // Somebody was quicker.
            Err(EngineError::Illegal { .. } | EngineError::NoSuchOperation { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(last) = ended.last() {
        // Who hears of it finds it in the list.
        let (_, revision) = engine.get_at(last.id).await?;
        registry.taken(revision).await;
    }
    registry.forget(host);
    Ok(ended)
}

fn refuse_alive(sessions: &Sessions, host: &HostName) -> Result<(), LoseError> {
    match sessions.of(host) {
        None => Ok(()),
        Some(session) => Err(LoseError::Connected {
            host: host.clone(),
            from: session.from,
        }),
    }
}

fn resources_of(registry: &Registry, host: &HostName) -> Vec<ResourceName> {
    let hypervisors = registry.map_hypervisors(|view| {
        let own = view.record.host == *host;
        own.then(|| ResourceName::from(&view.record.id))
    });
    let pools = registry.map_pools(|view| {
        let own = view.record.host == *host;
        own.then(|| ResourceName::from(&view.record.name))
    });
    hypervisors.into_iter().chain(pools).flatten().collect()
}
