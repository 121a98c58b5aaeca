//! The report: the host and its hypervisors as they are now. What cannot be told is reported so.

use std::sync::PoisonError;

use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::{
    self as rpc, Domain, Gpu, HostReport, HypervisorKind, HypervisorReport, Inventory, Observed,
    SharedStorage,
};

use super::guest::Guest;
use super::{Hypervisor, Hypervisors};
use crate::inventory::{self, Machine, storage};

pub(super) fn read(hypervisors: &Hypervisors) -> HostReport {
    let inventory = host_inventory(hypervisors);
    let reports = hypervisors.all.iter().map(|hypervisor| {
        let (kind, (observed, detail), inventory) = match hypervisor {
            Hypervisor::Host(host) => (
                HypervisorKind::Host,
                observe(&inventory, || host.observe()),
                inventory.clone(),
            ),
            Hypervisor::Guest(guest) => (
                HypervisorKind::Guest,
                observe(&inventory, || guest.observe()),
                guest_inventory(guest, &inventory),
            ),
        };
        HypervisorReport {
            id: hypervisor.id().to_string(),
            kind: kind.into(),
            observed: observed.into(),
            detail,
            inventory: Some(inventory),
        }
    });
    HostReport {
        hypervisors: reports.collect(),
        inventory: Some(inventory),
    }
}

/// Asks `look` only while libvirt answers: each hypervisor would wait for the same answer once more.
fn observe(inventory: &Inventory, look: impl FnOnce() -> (Observed, String)) -> (Observed, String) {
    match &inventory.libvirt {
        Some(libvirt) if !libvirt.problem.is_empty() => (Observed::Unknown, libvirt.problem.clone()),
        _ => look(),
    }
}

fn host_inventory(hypervisors: &Hypervisors) -> Inventory {
    let site = &hypervisors.site;
    let machine = Machine::read();
    let libvirt = &site.libvirt;
    let (version, problem) = match libvirt.version() {
        Ok(version) => (version, String::new()),
        Err(fault) => (String::new(), Chain(&fault).to_string()),
    };
    let answers = problem.is_empty();
    let check = |storage: &crate::config::SharedStorageConfig| {
        let problem = match storage::check(storage, libvirt) {
            Ok(()) => String::new(),
            Err(fault) => Chain(&fault).to_string(),
        };
        SharedStorage {
            path: storage.path.to_string(),
            usable: problem.is_empty(),
            problem,
        }
    };
    let running = if answers {
        libvirt.running_domains().unwrap_or_default()
    } else {
        Vec::new()
    };
    Inventory {
        cpu_threads: machine.cpu_threads,
        memory_mb: machine.memory_mb,
        gpus: gpus(hypervisors, answers),
        shared_storage: site.shared_storage.iter().map(check).collect(),
        libvirt: Some(rpc::Libvirt {
            uri: libvirt.uri().to_owned(),
            version,
            problem,
        }),
        running_domains: running
            .into_iter()
            .map(|domain| Domain {
                name: domain.name,
                uuid: domain.uuid.to_string(),
            })
            .collect(),
    }
}

fn gpus(hypervisors: &Hypervisors, libvirt_answers: bool) -> Vec<Gpu> {
    let mut seen = hypervisors
        .seen_gpus
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if !libvirt_answers {
        return seen.clone();
    }
    match inventory::gpus(&hypervisors.site.libvirt, &hypervisors.site.gpu_names) {
        Ok(gpus) if gpus == *seen => {}
        Ok(gpus) => {
            for gpu in gpus.iter().filter(|gpu| gpu.model.contains('/')) {
                tracing::warn!(
                    pci = gpu.pci_address,
                    model = gpu.model,
                    "PCI ids do not tell which GPU this is; name it with [[gpu]] in the configuration"
                );
            }
            tracing::info!(gpus = gpus.len(), "GPUs found");
            *seen = gpus;
        }
        Err(fault) => {
            tracing::debug!(error = %Chain(&fault), "cannot list PCI devices; GPUs are as last seen")
        }
    }
    seen.clone()
}

/// A guest has what it is configured to have; libvirt is the host's.
fn guest_inventory(guest: &Guest, host: &Inventory) -> Inventory {
    let config = guest.config();
    let passed_through = |gpu: &&Gpu| {
        config
            .pci_devices
            .iter()
            .any(|device| device.to_string() == gpu.pci_address)
    };
    Inventory {
        cpu_threads: config.cpu.get(),
        memory_mb: config.memory_mb.get(),
        gpus: host.gpus.iter().filter(passed_through).cloned().collect(),
        shared_storage: Vec::new(),
        libvirt: host.libvirt.clone(),
        running_domains: Vec::new(),
    }
}
