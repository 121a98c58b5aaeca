//! The report: the host and its hypervisors as they are now. What cannot be told is reported so.

use std::sync::PoisonError;

use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::{
    self as rpc, Domain, Gpu, HostReport, HypervisorKind, HypervisorReport, Inventory, Observed,
    SharedStorage,
};

use super::guest::Guest;
use super::{Hypervisor, Hypervisors, Look, Site};
use crate::inventory::{self, Machine, storage};

/// What is said of libvirt as long as nothing was asked of it.
const NOT_ASKED: &str = "it has not been asked yet";

pub(super) fn read(hypervisors: &Hypervisors, look: Look) -> HostReport {
    let inventory = host_inventory(hypervisors, look);
    report(hypervisors, inventory, |hypervisor, inventory| match hypervisor {
        Hypervisor::Host(host) => observe(inventory, || host.observe()),
        Hypervisor::Guest(guest) => observe(inventory, || guest.observe()),
    })
}

pub(super) fn unseen(hypervisors: &Hypervisors) -> HostReport {
    let machine = Machine::read();
    let inventory = Inventory {
        cpu_threads: machine.cpu_threads,
        memory_mb: machine.memory_mb,
        gpus: Vec::new(),
        shared_storage: unchecked(&hypervisors.site),
        libvirt: Some(rpc::Libvirt {
            uri: hypervisors.site.libvirt.uri().to_owned(),
            version: String::new(),
            problem: NOT_ASKED.to_owned(),
        }),
        running_domains: Vec::new(),
    };
    report(hypervisors, inventory, |_, _| {
        (Observed::Unknown, NOT_ASKED.to_owned())
    })
}

fn report(
    hypervisors: &Hypervisors,
    inventory: Inventory,
    observe: impl Fn(&Hypervisor, &Inventory) -> (Observed, String),
) -> HostReport {
    let reports = hypervisors.all.iter().map(|hypervisor| {
        let (kind, has) = match hypervisor {
            Hypervisor::Host(_) => (HypervisorKind::Host, inventory.clone()),
            Hypervisor::Guest(guest) => (HypervisorKind::Guest, guest_inventory(guest, &inventory)),
        };
        let (observed, detail) = observe(hypervisor, &inventory);
        HypervisorReport {
            id: hypervisor.id().to_string(),
            kind: kind.into(),
            observed: observed.into(),
            detail,
            inventory: Some(has),
        }
    });
    HostReport {
        hypervisors: reports.collect(),
        inventory: Some(inventory),
        pools: Vec::new(),
    }
}

/// The declared paths before any of them was checked.
pub(super) fn unchecked(site: &Site) -> Vec<SharedStorage> {
    let paths = site.shared_storage.iter();
    paths
        .map(|path| SharedStorage {
            path: path.config().path.to_string(),
            usable: false,
            problem: "it has not been checked yet".to_owned(),
        })
        .collect()
}

/// Asks `look` only while libvirt answers: each hypervisor would wait for the same answer once more.
fn observe(inventory: &Inventory, look: impl FnOnce() -> (Observed, String)) -> (Observed, String) {
    match &inventory.libvirt {
        Some(libvirt) if !libvirt.problem.is_empty() => (Observed::Unknown, libvirt.problem.clone()),
        _ => look(),
    }
}

fn host_inventory(hypervisors: &Hypervisors, look: Look) -> Inventory {
    let site = &hypervisors.site;
    let machine = Machine::read();
    let libvirt = &site.libvirt;
    let (version, problem) = match libvirt.version() {
        Ok(version) => (version, String::new()),
        Err(fault) => (String::new(), Chain(&fault).to_string()),
    };
    let answers = problem.is_empty();
    if look == Look::Whole {
        look_whole(hypervisors, answers);
    }
    let seen = hypervisors.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (gpus, shared_storage) = (seen.gpus.clone(), seen.shared_storage.clone());
    drop(seen);
    let running = if answers {
        libvirt.running_domains().unwrap_or_default()
    } else {
        Vec::new()
    };
    Inventory {
        cpu_threads: machine.cpu_threads,
        memory_mb: machine.memory_mb,
        gpus,
        shared_storage,
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

/// Renews what only a whole look reads. One look at a time, so nobody else writes it meanwhile.
fn look_whole(hypervisors: &Hypervisors, libvirt_answers: bool) {
    let site = &hypervisors.site;
    let checked = storage::check_all(&site.shared_storage, &site.libvirt);
    let checked = checked.into_iter().zip(&site.shared_storage);
    let shared_storage: Vec<_> = checked
        .map(|(checked, path)| SharedStorage {
            path: path.config().path.to_string(),
            usable: checked.is_ok(),
            problem: checked.map_or_else(|fault| Chain(&fault).to_string(), |()| String::new()),
        })
        .collect();
    let gpus = libvirt_answers.then(|| inventory::gpus(&site.libvirt, &site.gpu_names));
    let mut seen = hypervisors.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.shared_storage = shared_storage;
    match gpus {
        None => {}
        Some(Ok(gpus)) if gpus == seen.gpus => {}
        Some(Ok(gpus)) => {
            for gpu in gpus.iter().filter(|gpu| gpu.model.contains('/')) {
                tracing::warn!(
                    pci = gpu.pci_address,
                    model = gpu.model,
                    "PCI ids do not tell which GPU this is; name it with [[gpu]] in the configuration"
                );
            }
            tracing::info!(gpus = gpus.len(), "GPUs found");
            seen.gpus = gpus;
        }
        Some(Err(fault)) => {
            tracing::debug!(error = %Chain(&fault), "cannot list PCI devices; GPUs are as last seen");
        }
    }
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
