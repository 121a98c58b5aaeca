//! Plans against the kernel: what the planner says is safe the kernel does, on pools of several profiles and fills,
//! and the figures that the plan foretold are the ones that the kernel gives.
//!
//! Needs root, btrfs-progs and loop devices. Every test has its own devices and compares the checksums of all data.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "support/loops.rs"]
mod loops;

use std::path::Path;
use std::sync::Arc;

use hostler_agent::executor::plan::Job;
use hostler_agent::storage::Backend as _;
use hostler_agent::storage::owner::{Settings, Storage};
use hostler_agent::storage::plan::{Reserve, StoragePlan, shrink, spare};
use hostler_agent::storage::pool::PoolState;
use hostler_common::bytes::Bytes;
use hostler_common::id::OperationId;
use hostler_common::operation::Request;

use self::loops::{Bench, Ears, MIB, backend, checksums, fill};

fn storage(path: &Path, spares: &[&str], reserve: u32) -> Storage {
    let settings = Settings {
        pool: "default".parse().unwrap(),
        path: path.to_owned(),
        reserve: Reserve::try_from(reserve).unwrap(),
        backup_repository: String::new(),
    };
    Storage::new(settings, Arc::new(backend(path, spares, &[])))
}

/// Plans and runs every step, as the executor would.
fn carry_out(storage: &Storage, request: Request) -> (StoragePlan, Ears) {
    let job = Job {
        operation: OperationId::generate(),
        resource: "default".parse().unwrap(),
        request,
    };
    let planned = storage
        .plan(&job, None)
        .unwrap_or_else(|problem| panic!("{problem}"));
    let ears = Ears::default();
    for step in &planned.steps {
        let before = step.look().unwrap();
        step.apply(before, &ears.progress())
            .unwrap_or_else(|error| panic!("{}: {error}", step.name()));
    }
    (serde_json::from_value(planned.decided).unwrap(), ears)
}

fn look(path: &Path, spares: &[&str]) -> PoolState {
    backend(path, spares, &[]).look().unwrap()
}

/// A pool of four devices of 1 GiB with so much in it shrinks as far as it is said to, and back.
fn shrinks_to_its_floor_and_grows_back(options: &[&str], used: u64, reserve: u32) {
    let mut bench = Bench::new();
    let devices: Vec<_> = (0..4).map(|_| bench.device(1024 * MIB)).collect();
    let devices: Vec<_> = devices.iter().map(String::as_str).collect();
    let path = bench.pool(&devices, options);
    fill(&path.join("data"), used * MIB, used);
    let sums = checksums(&path);
    let storage = storage(&path, &devices, reserve);
    let case = format!("{options:?}, {used} MiB, reserve {reserve} %");

    let first = look(&path, &devices);
    let foretold = shrink(&first, Bytes(u64::MAX), Reserve::try_from(reserve).unwrap()).unwrap();
    let (plan, ears) = carry_out(&storage, Request::ShrinkStorage { max: Bytes(u64::MAX) });
    let least = look(&path, &devices);
    assert_eq!(plan.after, foretold.after, "{case}");
    assert!(
        least.size.0.abs_diff(plan.after.0) < MIB,
        "{case}: {} and not {}",
        least.size,
        plan.after
    );
    assert!(!ears.heard("were planned"), "{case}");
    assert_eq!(checksums(&path), sums, "{case}");

    let back = spare(&least);
    carry_out(&storage, Request::ExpandStorage { min: back });
    let last = look(&path, &devices);
    assert_eq!(last.size, first.size, "{case}");
    assert_eq!(checksums(&path), sums, "{case}");
}

#[test]
fn a_single_copy_shrinks_to_its_floor_and_grows_back() {
    for (used, reserve) in [(20, 10), (900, 10), (900, 0), (1700, 0)] {
        shrinks_to_its_floor_and_grows_back(&["-d", "single", "-m", "dup"], used, reserve);
    }
}

#[test]
fn metadata_in_a_mirror_keeps_two_devices() {
    for (used, reserve) in [(20, 10), (1500, 0)] {
        shrinks_to_its_floor_and_grows_back(&["-d", "single", "-m", "raid1"], used, reserve);
    }
}

#[test]
fn a_mirror_shrinks_evenly_and_grows_back() {
    for (used, reserve) in [(20, 10), (700, 0)] {
        shrinks_to_its_floor_and_grows_back(&["-d", "raid1", "-m", "raid1"], used, reserve);
    }
}

#[test]
fn stripes_with_parity_shrink_and_grow_back() {
    shrinks_to_its_floor_and_grows_back(&["-d", "raid5", "-m", "raid1"], 500, 10);
}
