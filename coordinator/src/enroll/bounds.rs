//! How much of a report is kept. An agent is trusted with its own host, not with everybody's list: what it says
//! is cleaned of control characters and bounded far above what any machine has.

use hostler_common::id::MAX_ID_LEN;
use hostler_common::rpc::hostler::agent::v1 as agent;

use crate::operation::sentences::bounded;

/// GPUs of one hypervisor, declared shared paths, and domains that run at once.
const GPUS_AT_MOST: usize = 64;
const SHARED_PATHS_AT_MOST: usize = 64;
const DOMAINS_AT_MOST: usize = 4096;

/// Devices of one pool, and the bytes of their texts in all: so what a host's pools list stays below the 4 MiB that
/// gRPC clients take.
const DEVICES_AT_MOST: usize = 1024;
const DEVICE_TEXTS_AT_MOST: usize = 256 * 1024;

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

/// The pool's report within the bounds. Its devices in use come first, so that those stay.
pub(super) fn pool(mut report: agent::PoolReport) -> agent::PoolReport {
    let short = [
        &mut report.backend,
        &mut report.data_profile,
        &mut report.metadata_profile,
    ];
    for text in short {
        *text = bounded(text, NAME_AT_MOST);
    }
    for text in [
        &mut report.path,
        &mut report.problem,
        &mut report.backup_repository,
    ] {
        *text = bounded(text, TEXT_AT_MOST);
    }
    report.reserve_percent = report.reserve_percent.min(100);
    report.devices.truncate(DEVICES_AT_MOST);
    let mut texts = 0;
    let mut kept = 0;
    for device in &mut report.devices {
        device.path = bounded(&device.path, TEXT_AT_MOST);
        device.problem = bounded(&device.problem, TEXT_AT_MOST);
        texts += device.path.len() + device.problem.len();
        if texts > DEVICE_TEXTS_AT_MOST {
            break;
        }
        kept += 1;
    }
    report.devices.truncate(kept);
    report
}

/// A name that is told back to whoever sent it.
pub(super) fn name(name: &str) -> String {
    bounded(name, MAX_ID_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_any_size_takes_little_room() {
        let text = || "\u{1b}x".repeat(1 << 13);
        let device = || agent::PoolDevice {
            path: text(),
            problem: text(),
            ..Default::default()
        };
        let report = pool(agent::PoolReport {
            backend: text(),
            path: text(),
            problem: text(),
            reserve_percent: u32::MAX,
            devices: vec![device(); 2000],
            ..Default::default()
        });
        let texts = report
            .devices
            .iter()
            .map(|device| device.path.len() + device.problem.len());
        assert!(texts.sum::<usize>() <= DEVICE_TEXTS_AT_MOST);
        assert!(report.problem.len() < 1030 && report.reserve_percent == 100);
        let short = agent::PoolDevice {
            path: "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4".into(),
            ..Default::default()
        };
        let report = pool(agent::PoolReport {
            devices: vec![short; 2000],
            ..Default::default()
        });
        assert_eq!(report.devices.len(), DEVICES_AT_MOST);
    }
}
