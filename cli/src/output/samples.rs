//! Fixed inputs for the golden files of this folder. Changing one changes what the golden files show.

use hostler_common::operation::pack;
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use prost_types::Timestamp;

use super::lock_view::Lock;
use super::storage_view::{Backup, Pool};
use super::view::{Hypervisor, Operation};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_795_300_000 + seconds,
        nanos: 0,
    })
}

fn gpu(slot: u32, model: &str) -> agent::Gpu {
    agent::Gpu {
        pci_address: format!("0000:{slot:02x}:00.0"),
        brand: "NVIDIA".into(),
        model: model.into(),
    }
}

/// A host in service with everything, a guest out of service, a host in trouble.
pub(super) fn hypervisors() -> Vec<Hypervisor> {
    let whole = fleet::Hypervisor {
        id: "hv1".into(),
        host: "rack1-node1".into(),
        kind: agent::HypervisorKind::Host.into(),
        state: HypervisorState::AvailableToDestroy.into(),
        inventory: Some(agent::Inventory {
            cpu_threads: 64,
            memory_mb: 257_575,
            gpus: vec![gpu(0x41, "T4"), gpu(0x65, "T4"), gpu(0x81, "L40S")],
            shared_storage: vec![agent::SharedStorage {
                path: "/srv/shared".into(),
                usable: true,
                problem: String::new(),
            }],
            libvirt: Some(agent::Libvirt {
                uri: "qemu:///system".into(),
                version: "9.0.0".into(),
                problem: String::new(),
            }),
            running_domains: vec![agent::Domain {
                name: "desktop-17".into(),
                uuid: "5c6c4a0c-7c3b-4b3e-9a54-0d1f60c3a111".into(),
            }],
        }),
        connected: true,
        last_heard: at(60),
        inventory_changed: at(0),
        enrolled: at(-86_400),
        agent_version: "0.1.0".into(),
        ..Default::default()
    };
    let guest = fleet::Hypervisor {
        id: "nested-1".into(),
        host: "rack1-node1".into(),
        kind: agent::HypervisorKind::Guest.into(),
        state: HypervisorState::AvailableToCreate.into(),
        inventory: Some(agent::Inventory {
            cpu_threads: 1,
            memory_mb: 256,
            ..Default::default()
        }),
        connected: true,
        ..Default::default()
    };
    let trouble = fleet::Hypervisor {
        id: "hv2".into(),
        host: "rack1-node2".into(),
        kind: agent::HypervisorKind::Host.into(),
        state: HypervisorState::Unknown.into(),
        reason: "the agent has no session".into(),
        inventory: Some(agent::Inventory {
            cpu_threads: 32,
            memory_mb: 131_072,
            shared_storage: vec![agent::SharedStorage {
                path: "/srv/shared".into(),
                usable: false,
                problem: "not mounted".into(),
            }],
            libvirt: Some(agent::Libvirt {
                uri: "qemu:///system".into(),
                version: String::new(),
                problem: "connection refused".into(),
            }),
            ..Default::default()
        }),
        operation_ids: vec!["019aa111-2222-7333-8444-555566667777".into()],
        ..Default::default()
    };
    [whole, guest, trouble].map(Hypervisor::from).into()
}

fn device(path: &str, role: agent::DeviceRole, figures: [u64; 3], problem: &str) -> agent::PoolDevice {
    let [capacity_bytes, share_bytes, allocated_bytes] = figures;
    agent::PoolDevice {
        path: path.into(),
        role: role.into(),
        capacity_bytes,
        share_bytes,
        allocated_bytes,
        problem: problem.into(),
    }
}

/// A pool with every role of device, and one whose host is away.
pub(super) fn pools() -> Vec<Pool> {
    use agent::DeviceRole::{Member, Refused, Spare};
    const GIB: u64 = 1 << 30;
    let report = agent::PoolReport {
        name: "fast".into(),
        backend: "btrfs".into(),
        path: "/srv/shared".into(),
        size_bytes: 12 * GIB,
        used_bytes: 3 * GIB + 1,
        spare_bytes: 8 * GIB,
        reserve_percent: 10,
        smallest_bytes: 4 * GIB,
        data_profile: "single".into(),
        metadata_profile: "RAID1".into(),
        devices: vec![
            device(
                "/dev/disk/by-id/wwn-0x50014ee1",
                Member,
                [8 * GIB, 8 * GIB, 4 * GIB],
                "",
            ),
            device(
                "/dev/disk/by-id/wwn-0x50014ee2",
                Member,
                [8 * GIB, 4 * GIB, GIB],
                "",
            ),
            device("/dev/disk/by-id/wwn-0x50014ee3", Spare, [4 * GIB, 0, 0], ""),
            device(
                "/dev/disk/by-id/wwn-0x50014ee4",
                Refused,
                [4 * GIB, 0, 0],
                "it holds an ext4 filesystem",
            ),
        ],
        backup_repository: "sftp:backup.example.org:/fast".into(),
        ..Default::default()
    };
    let ready = fleet::StoragePool {
        name: "fast".into(),
        host: "rack1-node1".into(),
        report: Some(report),
        connected: true,
        changed: at(0),
        enrolled: at(-86_400),
        is_default: true,
        ..Default::default()
    };
    let away = fleet::StoragePool {
        name: "archive".into(),
        host: "rack1-node2".into(),
        report: Some(agent::PoolReport {
            backend: "btrfs".into(),
            size_bytes: 40 * GIB,
            used_bytes: 39 * GIB,
            ..Default::default()
        }),
        operation_ids: vec!["019aa111-2222-7333-8444-555566667777".into()],
        reason: "its host rack1-node2 is not connected".into(),
        ..Default::default()
    };
    [ready, away].map(Pool::from).into()
}

/// One that others may end, one that they may not.
pub(super) fn locks() -> Vec<Lock> {
    let lock = |resource: &str, by: &str, reason: &str, is_disabled_cancel| fleet::Operation {
        id: "019aa111-2222-7333-8444-555566667777".into(),
        resource: resource.into(),
        kind: "ProposeOperation".into(),
        state: OperationState::Active.into(),
        message: reason.into(),
        requested_by: format!("spiffe://example.org/client/operator/{by}"),
        requested: at(0),
        reason: reason.into(),
        lease: Some(n0stack::Operation {
            locked_until: at(1800),
            is_disabled_cancel,
            ..Default::default()
        }),
        ..Default::default()
    };
    let disks = "two disks of the lower shelf are swapped, after which the pool is balanced";
    let locks = [
        lock("fast", "alice", disks, false),
        lock("hv1", "firmware", "", true),
    ];
    locks.map(Lock::from).into()
}

/// One made by an operation, one by something else.
pub(super) fn backups() -> Vec<Backup> {
    let whole = agent::Backup {
        id: format!("3f2a9c1e{}", "0".repeat(56)),
        time_unix_ms: 1_795_300_000_000,
        host: "rack1-node1".into(),
        operation_id: "019aa111-2222-7333-8444-555566667777".into(),
        files: 1204,
        bytes: 7 << 29,
        tags: vec!["hostler".into()],
    };
    let foreign = agent::Backup {
        id: format!("77aa00bb{}", "1".repeat(56)),
        time_unix_ms: 1_795_386_400_000,
        host: "rack1-node1".into(),
        ..Default::default()
    };
    [whole, foreign].map(Backup::from).into()
}

/// One that ended needing attention, one that runs, one on a pool that waits.
pub(super) fn operations() -> Vec<Operation> {
    let log = |seconds, message: &str| n0stack::operation::Log {
        ts: at(seconds),
        message: message.into(),
    };
    let failed = fleet::Operation {
        id: "019aa111-2222-7333-8444-555566667777".into(),
        resource: "hv1".into(),
        kind: "DestroyHypervisor".into(),
        state: OperationState::Failed.into(),
        message:
            "step 'stop the activation' failed: exit status 3; undoing it failed too: the unit does not \
                  start; hv1 stays locked"
                .into(),
        requested_by: "spiffe://example.org/client/operator/alice".into(),
        requested: at(0),
        reason: "disk swap".into(),
        ended: at(42),
        attempts: 1,
        needs_attention: true,
        lease: Some(n0stack::Operation {
            logs: vec![
                log(0, "scheduled"),
                log(1, "stop the activation"),
                log(42, "exit status 3"),
            ],
            ..Default::default()
        }),
        fence: 7,
    };
    let shrink = fleet::Operation {
        id: "019aa111-2222-7333-8444-aaaabbbbcccc".into(),
        resource: "fast".into(),
        kind: "ShrinkStorage".into(),
        state: OperationState::Scheduled.into(),
        message: "waits for operation 019aa111-2222-7333-8444-888899990000 (back up)".into(),
        requested_by: "spiffe://example.org/client/operator/alice".into(),
        requested: at(-30),
        lease: Some(n0stack::Operation {
            operation_request: Some(pack(&fleet::ShrinkStorageRequest {
                max_bytes: 10 << 30,
                ..Default::default()
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let active = fleet::Operation {
        id: "019aa111-2222-7333-8444-888899990000".into(),
        resource: "nested-1".into(),
        kind: "CreateHypervisor".into(),
        state: OperationState::Active.into(),
        message: "start domain nested-1".into(),
        requested_by: "spiffe://example.org/client/admin/bob".into(),
        requested: at(-60),
        attempts: 1,
        lease: Some(n0stack::Operation {
            locked_until: at(30),
            ..Default::default()
        }),
        fence: 8,
        ..Default::default()
    };
    [failed, active, shrink].map(Operation::whole).into()
}
