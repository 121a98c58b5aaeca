//! What is taken off the list against what is reported: whichever comes first decides, and the other hears of it.
//!
//! It stores nothing. The invariant: nothing counts as reported that is not listed, and nothing that is reported leaves
//! the list. Both are decided under the lock of the fleet, so that an agent that connects while its hypervisor is
//! expunged is never taken at its word about a hypervisor that is gone.

use hostler_common::id::{Epoch, HostName, HypervisorId, PoolName, ResourceName};

use super::{Fleet, HostLive, Registry, Reported};

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// All that it names is listed. Also when a newer session speaks for the host.
    Listed,
    /// Something that it names was expunged since it was accepted, or is being expunged: nothing of it counts.
    Expunged,
}

/// Something is on its way off the list, and cannot be reported until this is dropped.
#[derive(Debug)]
pub struct Leaving {
    registry: Registry,
    name: ResourceName,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.registry.write(|fleet| {
            // One of them: two people may expunge the same thing at once.
            if let Some(place) = fleet.leaving.iter().position(|name| *name == self.name) {
                fleet.leaving.swap_remove(place);
            }
        });
    }
}

impl Registry {
    /// Begins to take `name` off the list. None while a live session reports it.
    pub fn leave(&self, name: &ResourceName) -> Option<Leaving> {
        let (id, pool) = (HypervisorId::from(name), PoolName::from(name));
        self.write(|fleet| {
            let reports = |live: &HostLive| live.domains(&id).is_some() || live.pool(&pool).is_some();
            if fleet.hosts.values().any(reports) {
                return None;
            }
            fleet.leaving.push(name.clone());
            Some(Leaving {
                registry: self.clone(),
                name: name.clone(),
            })
        })
    }

    /// A session of `host` has reported these, all of them accepted and stored.
    pub fn reported(&self, host: &HostName, epoch: Epoch, reported: Reported) -> Listing {
        let changed = self.write(|fleet| {
            if !lists(fleet, &reported) {
                return Err(Listing::Expunged);
            }
            match fleet.hosts.get_mut(host) {
                Some(live) if live.is_connected_as(epoch) => Ok(live.report(reported)),
                Some(_) | None => Err(Listing::Listed),
            }
        });
        let changed = match changed {
            Ok(changed) => changed,
            Err(listing) => return listing,
        };
        if changed.hypervisors {
            self.tell_hypervisors_of(host);
        }
        if changed.pools {
            self.tell_pools_of(host);
        }
        Listing::Listed
    }
}

/// Whether all that is reported is listed, and stays so.
fn lists(fleet: &Fleet, reported: &Reported) -> bool {
    let stays = |name: ResourceName| !fleet.leaving.contains(&name);
    let mut hypervisors = reported.hypervisors.keys();
    let mut pools = reported.pools.keys();
    hypervisors.all(|id| fleet.hypervisors.contains_key(id) && stays(id.into()))
        && pools.all(|name| fleet.pools.contains_key(name) && stays(name.into()))
}
