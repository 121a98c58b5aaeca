//! What decides about a resource before its own report does: its lock, and its host's session. The same for
//! hypervisors and pools, so that both are explained in the same words.

use hostler_common::id::{HostName, OperationId, ResourceName};

use super::{Fleet, HostLive, Presence};
use crate::operation::locks::Lock;
use crate::operation::sentences;
use crate::operation::state::Operator;

/// The first that holds.
#[derive(Debug)]
pub(super) enum Standing<'a> {
    /// An ended operation left it unknown.
    Attention(OperationId),
    /// An operation has not ended, or a client holds it.
    Busy(OperationId),
    /// Its host has not connected since the coordinator started.
    NeverSeen,
    /// Its host is not connected.
    Gone(&'a HostLive),
    /// Its host is connected and does not report it.
    Unreported,
    /// Its host reports it now.
    Seen,
}

impl<'a> Standing<'a> {
    /// Of a resource of a host. `reported` tells whether the live session reports it.
    pub(super) fn of(
        lock: Option<&Lock>,
        live: Option<&'a HostLive>,
        reported: impl FnOnce(&HostLive) -> bool,
    ) -> Self {
        if let Some(id) = lock.and_then(|lock| lock.attention) {
            return Self::Attention(id);
        }
        if let Some(id) = lock.and_then(|lock| lock.queue.first()) {
            return Self::Busy(*id);
        }
        match live.map(|live| (live.presence(), live)) {
            None | Some((Presence::NeverSeen, _)) => Self::NeverSeen,
            Some((Presence::Gone, live)) => Self::Gone(live),
            Some((Presence::Connected, live)) if !reported(live) => Self::Unreported,
            Some((Presence::Connected, _)) => Self::Seen,
        }
    }

    /// Why nothing can be done with `resource` now; None when its report decides.
    pub(super) fn reason(&self, fleet: &Fleet, resource: &ResourceName, host: &HostName) -> Option<String> {
        Some(match self {
            Self::Attention(id) => sentences::attention(resource, *id),
            Self::Busy(id) => match fleet.operations.get(id).map(|held| &held.value) {
                Some(hold) if hold.operator() == Operator::Client => sentences::locked(hold),
                Some(running) => format!("{} operation {id} has not ended", running.kind.verb()),
                None => format!("its operation {id} has not ended"),
            },
            Self::NeverSeen => format!("host {host} has not connected since the coordinator started"),
            Self::Gone(live) => format!(
                "host {host} is not connected; last heard at {}",
                live.last_heard()
            ),
            Self::Unreported => {
                format!(
                    "host {host} is connected but does not report it; is it in the agent's configuration?"
                )
            }
            Self::Seen => return None,
        })
    }
}
