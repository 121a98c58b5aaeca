//! How much of a report is kept. An agent is trusted with its own host, not with everybody's list: what it says
//! is cleaned of control characters and bounded far above what any machine has.

use hostler_common::rpc::hostler::agent::v1 as agent;

use crate::operation::sentences::bounded;

/// GPUs of one hypervisor, declared shared paths, and domains that run at once.
const GPUS_AT_MOST: usize = 64;
const SHARED_PATHS_AT_MOST: usize = 64;
const DOMAINS_AT_MOST: usize = 4096;

/// What the list's int32 can say, in MB: two petabytes.
const MEMORY_MB_AT_MOST: u64 = i32::MAX as u64;

/// A short name, as a GPU's model, in bytes.
const NAME_AT_MOST: usize = 64;

/// A path, a URI or a sentence, in bytes.
const TEXT_AT_MOST: usize = 1024;

/// The inventory within the bounds.
pub(super) fn inventory(mut inventory: agent::Inventory) -> agent::Inventory {
    inventory.memory_mb = inventory.memory_mb.min(MEMORY_MB_AT_MOST);
    inventory.gpus.truncate(GPUS_AT_MOST);
    for gpu in &mut inventory.gpus {
        for text in [&mut gpu.pci_address, &mut gpu.brand, &mut gpu.model] {
            *text = bounded(text, NAME_AT_MOST);
        }
    }
    inventory.shared_storage.truncate(SHARED_PATHS_AT_MOST);
    for path in &mut inventory.shared_storage {
        path.path = bounded(&path.path, TEXT_AT_MOST);
        path.problem = bounded(&path.problem, TEXT_AT_MOST);
    }
    if let Some(libvirt) = &mut inventory.libvirt {
        libvirt.uri = bounded(&libvirt.uri, TEXT_AT_MOST);
        libvirt.version = bounded(&libvirt.version, NAME_AT_MOST);
        libvirt.problem = bounded(&libvirt.problem, TEXT_AT_MOST);
    }
    inventory.running_domains.truncate(DOMAINS_AT_MOST);
    for domain in &mut inventory.running_domains {
        domain.name = bounded(&domain.name, TEXT_AT_MOST);
        domain.uuid = bounded(&domain.uuid, NAME_AT_MOST);
    }
    inventory
}
