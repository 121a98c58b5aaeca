//! A hypervisor as clients see it. The state is derived here and nowhere else: from what the agent observed,
//! the session and the lock, never from a flag.

use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::fleet::v1 as fleet_rpc;
use hostler_common::rpc::operations::v1::{
    HypervisorCapabilities, HypervisorGpu, HypervisorState, ListHypervisorsResponseHypervisor,
};

use super::{Fleet, HostLive, HypervisorRecord, Observed, Presence};
use crate::operation::locks::Lock;
use crate::operation::sentences;

/// One hypervisor with what is known of it now. Borrows nothing, copies the record.
#[derive(Debug, Clone)]
pub struct HypervisorView {
    /// As stored.
    pub record: HypervisorRecord,
    /// What can be done with it now.
    pub state: HypervisorState,
    /// Why.
    pub reason: String,
    /// Its lock.
    pub lock: Lock,
    connected: bool,
    last_heard: Option<hostler_common::units::UnixMillis>,
    agent_version: String,
    domains: Vec<agent::Domain>,
}

pub(super) fn of(fleet: &Fleet, record: &HypervisorRecord) -> HypervisorView {
    let live = fleet.hosts.get(&record.host);
    let lock = fleet
        .locks
        .get(&(&record.id).into())
        .map(|held| held.value.clone())
        .unwrap_or_default();
    let (state, reason) = state(fleet, record, live, &lock);
    HypervisorView {
        state,
        reason,
        connected: live.is_some_and(|live| live.presence() == Presence::Connected),
        last_heard: live.map(HostLive::last_heard),
        agent_version: live
            .map(|live| live.agent_version().to_owned())
            .unwrap_or_default(),
        domains: live
            .and_then(|live| live.domains(&record.id))
            .map(<[_]>::to_vec)
            .unwrap_or_default(),
        record: record.clone(),
        lock,
    }
}

fn state(
    fleet: &Fleet,
    record: &HypervisorRecord,
    live: Option<&HostLive>,
    lock: &Lock,
) -> (HypervisorState, String) {
    use HypervisorState::{AvailableToCreate, AvailableToDestroy, Unknown};
    let host = &record.host;
    if let Some(id) = lock.attention {
        return (Unknown, sentences::attention(&(&record.id).into(), id));
    }
    if let Some(id) = lock.queue.first() {
        let verb = fleet
            .operations
            .get(id)
            .map_or("its", |held| held.value.kind.verb());
        return (Unknown, format!("{verb} operation {id} has not ended"));
    }
    match live.map(|live| (live.presence(), live)) {
        None | Some((Presence::NeverSeen, _)) => (
            Unknown,
            format!("host {host} has not connected since the coordinator started"),
        ),
        Some((Presence::Gone, live)) => (
            Unknown,
            format!(
                "host {host} is not connected; last heard at {}",
                live.last_heard()
            ),
        ),
        Some((Presence::Connected, live)) if live.domains(&record.id).is_none() => (
            Unknown,
            format!("host {host} is connected but does not report it; is it in the agent's configuration?"),
        ),
        Some((Presence::Connected, _)) => {
            let state = match record.observed {
                Observed::Unknown => Unknown,
                Observed::InService => AvailableToDestroy,
                Observed::OutOfService => AvailableToCreate,
            };
            (state, record.detail.clone())
        }
    }
}

impl HypervisorView {
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
            state: self.state.into(),
            gpus,
        }
    }

    /// The whole of it.
    pub fn to_rpc(&self) -> fleet_rpc::Hypervisor {
        let record = &self.record;
        let inventory = agent::Inventory {
            running_domains: self.domains.clone(),
            ..record.inventory.clone()
        };
        fleet_rpc::Hypervisor {
            id: record.id.to_string(),
            host: record.host.to_string(),
            kind: agent::HypervisorKind::from(record.kind).into(),
            state: self.state.into(),
            reason: self.reason.clone(),
            inventory: Some(inventory),
            connected: self.connected,
            last_heard: self.last_heard.map(Into::into),
            inventory_changed: Some(record.changed_at.into()),
            enrolled: Some(record.enrolled_at.into()),
            agent_version: self.agent_version.clone(),
            operation_ids: self.lock.queue.iter().map(ToString::to_string).collect(),
        }
    }
}
