//! What is known of a host only while its session lives, or since it last did. Never stored.

use std::collections::HashMap;

use hostler_common::id::{Epoch, HypervisorId, PoolName};
use hostler_common::rpc::hostler::agent::v1::{Domain, PoolReport};
use hostler_common::units::UnixMillis;

/// What of one report is told but not stored.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Reported {
    /// Its hypervisors, with the domains that run on each.
    pub hypervisors: HashMap<HypervisorId, Vec<Domain>>,
    /// Its pools, with their figures.
    pub pools: HashMap<PoolName, PoolReport>,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) hypervisors: bool,
    pub(super) pools: bool,
}

/// A pool as its owner last told it.
#[derive(Debug, Clone)]
struct PoolLive {
    report: PoolReport,
    told: Told,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// In the newest report of the live session.
    Now,
    /// Before that.
    Before,
}

/// One host since the coordinator started.
#[derive(Debug)]
pub struct HostLive {
    /// Of its newest session.
    epoch: Epoch,
    session: Session,
    agent_version: String,
    last_heard: UnixMillis,
    /// Of the newest report.
    hypervisors: HashMap<HypervisorId, Vec<Domain>>,
    /// Every pool that it has reported: the last figures outlive the session.
    pools: HashMap<PoolName, PoolLive>,
}

#[derive(Debug)]
enum Session {
    Connected,
    Gone,
}

/// Whether a host has a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has one.
    Connected,
    /// Not since the coordinator started.
    NeverSeen,
    /// It had one.
    Gone,
}

impl HostLive {
    /// A session begins. `before` is what was known of the host until now.
    pub(super) fn connected(epoch: Epoch, agent_version: &str, before: Option<Self>) -> Self {
        let mut pools = before.map(|before| before.pools).unwrap_or_default();
        age(&mut pools);
        Self {
            epoch,
            session: Session::Connected,
            agent_version: agent_version.to_owned(),
            last_heard: UnixMillis::now(),
            hypervisors: HashMap::new(),
            pools,
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.session = Session::Gone;
        self.hypervisors.clear();
        age(&mut self.pools);
    }

    pub(super) fn heard(&mut self) {
        self.last_heard = UnixMillis::now();
    }

    /// Takes a report, and tells how it differs from the one before.
    pub(super) fn report(&mut self, reported: Reported) -> Changed {
        let hypervisors = self.hypervisors != reported.hypervisors;
        self.hypervisors = reported.hypervisors;
        let told = self.pools.values().filter(|pool| pool.told == Told::Now).count();
        let pools = told != reported.pools.len()
            || reported
                .pools
                .iter()
                .any(|(name, report)| self.pool(name) != Some(report));
        age(&mut self.pools);
        for (name, report) in reported.pools {
            let told = Told::Now;
            self.pools.insert(name, PoolLive { report, told });
        }
        Changed { hypervisors, pools }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The session of `epoch` is the newest, and has not ended.
    pub(super) fn is_connected_as(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && self.presence() == Presence::Connected
    }

    pub(super) fn presence(&self) -> Presence {
        match self.session {
            Session::Connected => Presence::Connected,
            Session::Gone => Presence::Gone,
        }
    }

    pub(super) fn agent_version(&self) -> &str {
        &self.agent_version
    }

    pub(super) fn last_heard(&self) -> UnixMillis {
        self.last_heard
    }

    /// The domains that run on a hypervisor; None when the live session has not reported it.
    pub(super) fn domains(&self, id: &HypervisorId) -> Option<&[Domain]> {
        self.hypervisors.get(id).map(Vec::as_slice)
    }

    /// A pool as the live session reports it.
    pub(super) fn pool(&self, name: &PoolName) -> Option<&PoolReport> {
        let pool = self.pools.get(name).filter(|pool| pool.told == Told::Now)?;
        Some(&pool.report)
    }

    /// A pool as it was last reported, by whichever session.
    pub(super) fn last_of_pool(&self, name: &PoolName) -> Option<&PoolReport> {
        self.pools.get(name).map(|pool| &pool.report)
    }
}

fn age(pools: &mut HashMap<PoolName, PoolLive>) {
    for pool in pools.values_mut() {
        pool.told = Told::Before;
    }
}
