//! Hosts rather than what they have: which of them were heard, and what of theirs waits for a person.
//!
//! Invariant: forgetting a host takes nothing off the list of hypervisors or pools.

use hostler_common::id::{HostName, OperationId, ResourceName};
use hostler_common::units::UnixMillis;

use super::{Change, HostLive, Presence, Registry};

/// A host that had a session since the coordinator started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The host.
    pub host: HostName,
    /// Whether it has one now.
    pub presence: Presence,
    /// As its agent says.
    pub agent_version: String,
    /// When something last came from it.
    pub last_heard: UnixMillis,
}

impl Registry {
    /// Every host that had a session since the coordinator started, in no order.
    pub fn seen(&self) -> Vec<Seen> {
        self.read(|fleet| {
            let hosts = fleet.hosts.iter();
            let seen = hosts.map(|(host, live)| Seen {
                host: host.clone(),
                presence: live.presence(),
                agent_version: live.agent_version().to_owned(),
                last_heard: live.last_heard(),
            });
            seen.collect()
        })
    }

    /// What waits for a person, with the operation that left it so, by name.
    pub fn attentions(&self) -> Vec<(ResourceName, OperationId)> {
        self.read(|fleet| {
            let locks = fleet.locks.iter();
            locks
                .filter_map(|(resource, held)| Some((resource.clone(), held.value.attention?)))
                .collect()
        })
    }

    /// A host that has no session is as one that never had one.
    pub fn forget(&self, host: &HostName) {
        let forgotten = self.write(|fleet| {
            let gone = fleet.hosts.get(host).map(HostLive::presence) == Some(Presence::Gone);
            if gone {
                fleet.hosts.remove(host);
            }
            gone
        });
        if forgotten {
            self.tell(Change::Host(host.clone()));
            self.tell_hypervisors_of(host);
            self.tell_pools_of(host);
        }
    }
}
