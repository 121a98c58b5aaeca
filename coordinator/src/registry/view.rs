//! A hypervisor as clients see it. The state is derived here and nowhere else: from what the agent observed,
//! the session and the lock, never from a flag.

use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::fleet::v1 as fleet_rpc;
use hostler_common::rpc::operations::v1::{
    HypervisorCapabilities, HypervisorGpu, HypervisorState, ListHypervisorsResponseHypervisor,
};

use super::standing::Standing;
use super::{Fleet, HostLive, HypervisorRecord, Observed, Presence};
use crate::operation::locks::Lock;

/// One hypervisor with what is known of it now. Borrowed from the fleet, which waits meanwhile: read and let go.
#[derive(Debug)]
pub struct HypervisorView<'a> {
    /// As stored.
    pub record: &'a HypervisorRecord,
    fleet: &'a Fleet,
    lock: Option<&'a Lock>,
    live: Option<&'a HostLive>,
}

impl<'a> HypervisorView<'a> {
    pub(super) fn of(fleet: &'a Fleet, record: &'a HypervisorRecord) -> Self {
        let lock = fleet.locks.get(&(&record.id).into()).map(|held| &held.value);
        Self {
            record,
            fleet,
            lock,
            live: fleet.hosts.get(&record.host),
        }
    }

    fn standing(&self) -> Standing<'a> {
        let reported = |live: &HostLive| live.domains(&self.record.id).is_some();
        Standing::of(self.lock, self.live, reported)
    }

    /// What can be done with it now.
    pub fn state(&self) -> HypervisorState {
        match (self.standing(), self.record.observed) {
            (Standing::Seen, Observed::InService) => HypervisorState::AvailableToDestroy,
            (Standing::Seen, Observed::OutOfService) => HypervisorState::AvailableToCreate,
            (Standing::Seen, Observed::Unknown)
            | (
                Standing::Attention(_)
                | Standing::Busy(_)
                | Standing::NeverSeen
                | Standing::Gone(_)
                | Standing::Unreported,
                _,
            ) => HypervisorState::Unknown,
        }
    }

    /// Why; empty when there is nothing to say.
    pub fn reason(&self) -> String {
        let record = self.record;
        let resource = (&record.id).into();
        self.standing()
            .reason(self.fleet, &resource, &record.host)
            .unwrap_or_else(|| record.detail.clone())
    }

    /// Its entry in ListHypervisors.
    pub fn to_list_entry(&self) -> ListHypervisorsResponseHypervisor {
        let inventory = &self.record.inventory;
        let gpus: Vec<_> = inventory
            .gpus
            .iter()
            .map(|gpu| HypervisorGpu {
                brand: gpu.brand.clone(),
                model: gpu.model.clone(),
            })
            .collect();
        let mut capabilities = Vec::new();
        if !inventory.shared_storage.is_empty() && inventory.shared_storage.iter().all(|path| path.usable) {
            capabilities.push(HypervisorCapabilities::Storage.into());
        }
        if !gpus.is_empty() {
            capabilities.push(HypervisorCapabilities::Gpu.into());
        }
        ListHypervisorsResponseHypervisor {
            id: self.record.id.to_string(),
            cpu: i32::try_from(inventory.cpu_threads).unwrap_or(i32::MAX),
            ram: i32::try_from(inventory.memory_mb).unwrap_or(i32::MAX),
            capabilities,
            state: self.state().into(),
            gpus,
        }
    }

    /// The whole of it.
    pub fn to_rpc(&self) -> fleet_rpc::Hypervisor {
        let record = self.record;
        let domains = self.live.and_then(|live| live.domains(&record.id));
        let inventory = agent::Inventory {
            running_domains: domains.map(<[_]>::to_vec).unwrap_or_default(),
            ..record.inventory.clone()
        };
        fleet_rpc::Hypervisor {
            id: record.id.to_string(),
            host: record.host.to_string(),
            kind: agent::HypervisorKind::from(record.kind).into(),
            state: self.state().into(),
            reason: self.reason(),
            inventory: Some(inventory),
            connected: self
                .live
                .is_some_and(|live| live.presence() == Presence::Connected),
            last_heard: self.live.map(|live| live.last_heard().into()),
            inventory_changed: Some(record.changed_at.into()),
            enrolled: Some(record.enrolled_at.into()),
            agent_version: self
                .live
                .map(|live| live.agent_version().to_owned())
                .unwrap_or_default(),
            operation_ids: self
                .lock
                .iter()
                .flat_map(|lock| &lock.queue)
                .map(ToString::to_string)
                .collect(),
        }
    }
}
