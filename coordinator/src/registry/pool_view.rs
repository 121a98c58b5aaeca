//! A storage pool as clients see it. What the owner says last is shown, also while it is away; what can be done is
//! derived from the lock, the session and the report, never from a flag.

use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::fleet::v1 as fleet_rpc;

use super::standing::Standing;
use super::{Fleet, HostLive, PoolRecord, Presence, record};
use crate::operation::locks::Lock;

/// One pool with what is known of it now. Borrowed from the fleet, which waits meanwhile: read and let go.
#[derive(Debug)]
pub struct PoolView<'a> {
    /// As stored.
    pub record: &'a PoolRecord,
    fleet: &'a Fleet,
    lock: Option<&'a Lock>,
    live: Option<&'a HostLive>,
    naming: Naming,
}

/// Whether calls that name no pool mean this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// They do.
    Default,
    /// It must be named.
    Named,
}

impl<'a> PoolView<'a> {
    pub(super) fn of(fleet: &'a Fleet, record: &'a PoolRecord, naming: Naming) -> Self {
        let lock = fleet.locks.get(&(&record.name).into()).map(|held| &held.value);
        Self {
            record,
            fleet,
            lock,
            live: fleet.hosts.get(&record.host),
            naming,
        }
    }

    /// What its owner last said of it, with the last known figures.
    pub fn report(&self) -> &'a agent::PoolReport {
        // What is stored may be newer for a moment; then its figures are too.
        self.live
            .and_then(|live| live.last_of_pool(&self.record.name))
            .filter(|last| record::same_but_figures(last, &self.record.report))
            .unwrap_or(&self.record.report)
    }

    /// Whether its owner has a live session.
    pub fn connected(&self) -> bool {
        self.live
            .is_some_and(|live| live.presence() == Presence::Connected)
    }

    /// Whether calls that name no pool mean this one.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// Why nothing can be done with it now; empty when something can.
    pub fn reason(&self) -> String {
        let record = self.record;
        let reported = |live: &HostLive| live.pool(&record.name).is_some();
        let resource = (&record.name).into();
        Standing::of(self.lock, self.live, reported)
            .reason(self.fleet, &resource, &record.host)
            .unwrap_or_else(|| self.report().problem.clone())
    }

    /// The whole of it.
    pub fn to_rpc(&self) -> fleet_rpc::StoragePool {
        let record = self.record;
        fleet_rpc::StoragePool {
            name: record.name.to_string(),
            host: record.host.to_string(),
            report: Some(self.report().clone()),
            connected: self.connected(),
            changed: Some(record.changed_at.into()),
            enrolled: Some(record.enrolled_at.into()),
            operation_ids: self
                .lock
                .iter()
                .flat_map(|lock| &lock.queue)
                .map(ToString::to_string)
                .collect(),
            reason: self.reason(),
            is_default: self.naming == Naming::Default,
        }
    }
}
