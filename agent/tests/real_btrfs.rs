//! The btrfs backend on real devices: what it changes to the byte, what it survives, and what it refuses.
//!
//! Needs root, btrfs-progs and loop devices. Every test has its own devices and compares the checksums of all data.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "support/loops.rs"]
mod loops;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hostler_agent::executor::step::StepError;
use hostler_agent::storage::Backend;
use hostler_agent::storage::btrfs::Btrfs;
use hostler_agent::storage::pool::{Change, DeviceName, Member, PoolState, Presence, Profile};
use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;

use self::loops::{Bench, Ears, MIB, backend, checksum, checksums, exclusive, fill, run, try_run, until};

/// No longer than two chunks of the pools here take.
const SLOW: u64 = 40 * MIB;

fn name(device: &str) -> DeviceName {
    DeviceName(device.to_owned())
}

fn member<'a>(state: &'a PoolState, device: &str) -> Option<&'a Member> {
    state.members.iter().find(|member| member.name.0 == device)
}

fn add(device: &str, capacity: u64) -> Change {
    let (device, capacity) = (name(device), Bytes(capacity));
    Change::Add { device, capacity }
}

fn remove(state: &PoolState, device: &str) -> Change {
    let member = member(state, device).unwrap();
    Change::Remove {
        device: name(device),
        share: member.share,
        allocated: member.allocated,
    }
}

fn resize(device: &str, from: u64, to: u64) -> Change {
    let (device, from, to) = (name(device), Bytes(from), Bytes(to));
    match to < from {
        true => Change::Shrink { device, from, to },
        false => Change::Grow { device, from, to },
    }
}

fn apply(pool: &Btrfs, change: &Change) -> Result<(), StepError> {
    pool.apply(change, &Ears::default().progress())
}

fn revert(pool: &Btrfs, change: &Change) -> Result<(), StepError> {
    pool.revert(change, &Ears::default().progress())
}

fn signature(device: &str) -> String {
    run("wipefs", &["--no-act", device])
}

/// Its devices and their shares, which a change that failed leaves as they were.
fn shape(pool: &Btrfs) -> Vec<(String, Bytes)> {
    let members = pool.look().unwrap().members;
    members
        .into_iter()
        .map(|member| (member.name.0, member.share))
        .collect()
}

/// A pool of one filled device and a second one that holds data too.
fn two_devices(bench: &mut Bench) -> (String, String, Btrfs) {
    let [a, b] = [bench.device(2048 * MIB), bench.device(2048 * MIB)];
    let path = bench.pool(&[&b], &[]);
    fill(&path.join("data"), 400 * MIB, 1);
    let pool = backend(&path, &[&a, &b], &[]);
    apply(&pool, &add(&a, 2048 * MIB)).unwrap();
    (a, b, pool)
}

fn path_of(bench: &Bench) -> std::path::PathBuf {
    bench.last_mount().to_owned()
}

#[test]
fn a_pool_grows_and_shrinks_to_the_byte_under_a_writer_that_loses_nothing() {
    let mut bench = Bench::new();
    let [a, b] = [bench.device(1024 * MIB), bench.device(1024 * MIB)];
    let path = bench.pool(&[&a], &[]);
    fill(&path.join("old"), 200 * MIB, 7);
    let before = checksum(&path.join("old"));
    let link = bench.path("stable-name");
    std::os::unix::fs::symlink(&b, &link).unwrap();
    let stable = link.display().to_string();
    let pattern = bench.path("stable-*").display().to_string();
    let pool = backend(&path, &[&pattern, &a], &[]);

    let first = pool.look().unwrap();
    assert_eq!(first.size, Bytes(1024 * MIB));
    assert_eq!((first.data, first.metadata), (Profile::Single, Profile::Dup));
    assert!(first.data_used >= Bytes(200 * MIB) && first.used >= first.data_used);
    assert_eq!(first.spares.len(), 1, "a member is no spare");
    assert_eq!(
        (first.spares[0].name.0.as_str(), &first.spares[0].problem),
        (stable.as_str(), &None)
    );
    assert_eq!(first.spares[0].capacity, Bytes(1024 * MIB));

    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                fill(&path.join(format!("new-{}", count % 20)), 4 * MIB, count);
                count += 1;
                written.store(count, Ordering::SeqCst);
            }
            count
        });
        let added = add(&stable, 1024 * MIB);
        assert!(!pool.is_done(&added).unwrap());
        apply(&pool, &added).unwrap();
        apply(&pool, &added).unwrap();
        assert!(pool.is_done(&added).unwrap());
        let state = pool.look().unwrap();
        assert_eq!(state.size, Bytes(2048 * MIB));
        assert!(member(&state, &stable).is_some(), "{state:?}");

        let to = 700 * MIB + 12 * 4096;
        let shrink = resize(&stable, 1024 * MIB, to);
        apply(&pool, &shrink).unwrap();
        assert!(pool.is_done(&shrink).unwrap());
        let state = pool.look().unwrap();
        let shrunk = member(&state, &stable).unwrap();
        assert_eq!((shrunk.share, shrunk.capacity), (Bytes(to), Bytes(1024 * MIB)));
        assert_eq!(state.size, Bytes(1024 * MIB + to));
        revert(&pool, &shrink).unwrap();
        revert(&pool, &shrink).unwrap();
        assert_eq!(pool.look().unwrap().size, Bytes(2048 * MIB));

        until("the writer goes on", || written.load(Ordering::SeqCst) > 10);
        let removed = remove(&pool.look().unwrap(), &stable);
        assert!(!pool.is_done(&removed).unwrap());
        apply(&pool, &removed).unwrap();
        assert!(pool.is_done(&removed).unwrap());
        apply(&pool, &removed).unwrap();
        revert(&pool, &removed).unwrap();
        assert_eq!(pool.look().unwrap().size, Bytes(2048 * MIB));
        revert(&pool, &added).unwrap();
        revert(&pool, &added).unwrap();

        stop.store(true, Ordering::SeqCst);
        let count = writer.join().unwrap();
        for last in count.saturating_sub(20)..count {
            let written = path.join(format!("new-{}", last % 20));
            let expected = bench.path("expected");
            fill(&expected, 4 * MIB, last);
            assert_eq!(checksum(&written), checksum(&expected), "{last}");
        }
    });
    let last = pool.look().unwrap();
    assert_eq!(last.size, first.size);
    assert_eq!(
        last.spares, first.spares,
        "what was given back can be taken again"
    );
    assert_eq!(checksum(&path.join("old")), before);
    assert_eq!(signature(&b), "");
}

#[test]
fn a_removal_tells_how_far_it_is_and_leaves_the_device_clean() {
    let mut bench = Bench::new();
    let (_, b, pool) = two_devices(&mut bench);
    let sums = checksums(&path_of(&bench));
    bench.slow_down(&b, 2 * SLOW);
    let removal = remove(&pool.look().unwrap(), &b);
    let ears = Ears::default();
    pool.apply(&removal, &ears.progress()).unwrap();
    bench.speed_up();
    let measures = ears.measures.lock().unwrap();
    assert!(measures.len() >= 3, "{measures:?}");
    let last = measures.last().unwrap();
    assert_eq!(last.what, format!("relocate {b}"));
    assert_eq!(last.done_bytes, last.total_bytes);
    assert!(last.total_bytes >= 400 * MIB);
    assert_eq!(signature(&b), "");
    assert_eq!(checksums(&path_of(&bench)), sums);
}

#[test]
fn a_killed_removal_loses_nothing_and_is_made_again() {
    let mut bench = Bench::new();
    let (_, b, pool) = two_devices(&mut bench);
    let path = path_of(&bench);
    let sums = checksums(&path);
    let before = shape(&pool);
    let removal = remove(&pool.look().unwrap(), &b);
    bench.slow_down(&b, SLOW);
    std::thread::scope(|scope| {
        let apply = scope.spawn(|| apply(&pool, &removal));
        until("it removes", || exclusive(&path) == "device remove");
        kill_the_remover(&path);
        let error = apply.join().unwrap().unwrap_err();
        assert_eq!(error.retry(), Retry::ReadBack, "{error}");
        assert!(error.to_string().contains("nothing is lost"), "{error}");
    });
    bench.speed_up();
    assert_eq!(exclusive(&path), "none");
    assert_eq!(shape(&pool), before);
    apply(&pool, &removal).unwrap();
    assert!(pool.is_done(&removal).unwrap());
    assert_eq!(checksums(&path), sums);
}

/// Kills the `btrfs device remove` of the pool on `path`.
fn kill_the_remover(path: &Path) {
    let path = path.display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = command.split('\0').collect();
        if words.contains(&"remove") && words.contains(&path.as_str()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        }
    }
}

#[test]
fn a_removal_that_runs_already_is_followed_and_not_started_twice() {
    let mut bench = Bench::new();
    let (_, b, pool) = two_devices(&mut bench);
    let path = path_of(&bench);
    let sums = checksums(&path);
    let removal = remove(&pool.look().unwrap(), &b);
    bench.slow_down(&b, SLOW);
    std::thread::scope(|scope| {
        let by_hand =
            scope.spawn(|| try_run("btrfs", &["device", "remove", &b, &path.display().to_string()]));
        until("its share is gone", || {
            let show = run(
                "btrfs",
                &["filesystem", "show", "--raw", &path.display().to_string()],
            );
            show.contains("size 0 used")
        });
        assert!(!pool.is_done(&removal).unwrap());
        assert!(
            !pool.is_done(&add(&b, 2048 * MIB)).unwrap(),
            "it is on its way out"
        );
        let leaving = member(&pool.look().unwrap(), &b).unwrap().presence;
        assert_eq!(leaving, Presence::Leaving);
        let ears = Ears::default();
        pool.apply(&removal, &ears.progress()).unwrap();
        assert!(ears.heard("being removed already"), "{:?}", ears.lines);
        assert!(!ears.measures.lock().unwrap().is_empty());
        assert!(by_hand.join().unwrap().status.success());
    });
    assert!(pool.is_done(&removal).unwrap());
    assert_eq!(checksums(&path), sums);
    assert_eq!(signature(&b), "");
}

#[test]
fn a_cancelled_removal_stops_wherever_it_was_started_and_the_device_stays() {
    let mut bench = Bench::new();
    let (_, b, pool) = two_devices(&mut bench);
    let path = path_of(&bench);
    let sums = checksums(&path);
    let before = shape(&pool);
    let removal = remove(&pool.look().unwrap(), &b);
    bench.slow_down(&b, SLOW);
    let cancelled = || {
        let ears = Ears::default();
        std::thread::scope(|scope| {
            let apply = scope.spawn(|| pool.apply(&removal, &ears.progress()));
            until("it removes", || exclusive(&path) == "device remove");
            until("it says how far it is", || {
                !ears.measures.lock().unwrap().is_empty()
            });
            ears.cancel();
            let error = apply.join().unwrap().unwrap_err();
            assert!(error.is_cancelled(), "{error}");
        });
        assert_eq!(exclusive(&path), "none");
        assert_eq!(shape(&pool), before);
        revert(&pool, &removal).unwrap();
        assert_eq!(shape(&pool), before);
    };
    cancelled();
    std::thread::scope(|scope| {
        let by_hand =
            scope.spawn(|| try_run("btrfs", &["device", "remove", &b, &path.display().to_string()]));
        until("it removes", || exclusive(&path) == "device remove");
        cancelled();
        assert!(!by_hand.join().unwrap().status.success());
    });
    // An undo after a crash meets a removal that still runs.
    std::thread::scope(|scope| {
        scope.spawn(|| try_run("btrfs", &["device", "remove", &b, &path.display().to_string()]));
        until("it removes", || exclusive(&path) == "device remove");
        revert(&pool, &removal).unwrap();
        assert_eq!(shape(&pool), before);
    });
    bench.speed_up();
    assert_eq!(checksums(&path), sums);
}

#[test]
fn a_cancelled_shrink_stops_and_the_share_is_as_before() {
    let mut bench = Bench::new();
    let (_, b, pool) = two_devices(&mut bench);
    let path = path_of(&bench);
    let sums = checksums(&path);
    let before = shape(&pool);
    let shrink = resize(&b, 2048 * MIB, 256 * MIB);
    bench.slow_down(&b, SLOW);
    let ears = Ears::default();
    std::thread::scope(|scope| {
        let apply = scope.spawn(|| pool.apply(&shrink, &ears.progress()));
        until("it shrinks", || exclusive(&path) == "resize");
        until("it says how far it is", || {
            !ears.measures.lock().unwrap().is_empty()
        });
        assert!(!pool.is_done(&shrink).unwrap());
        ears.cancel();
        let error = apply.join().unwrap().unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    });
    bench.speed_up();
    assert_eq!(shape(&pool), before);
    apply(&pool, &shrink).unwrap();
    assert_eq!(member(&pool.look().unwrap(), &b).unwrap().share, Bytes(256 * MIB));
    assert_eq!(checksums(&path), sums);
}

#[test]
fn a_shrink_that_somebody_else_runs_is_not_stopped_by_an_undo() {
    let mut bench = Bench::new();
    let (a, b, pool) = two_devices(&mut bench);
    let path = path_of(&bench);
    let shown = path.display().to_string();
    bench.slow_down(&b, SLOW);
    std::thread::scope(|scope| {
        let by_hand = scope.spawn(|| try_run("btrfs", &["filesystem", "resize", "1:512M", &shown]));
        until("it shrinks", || exclusive(&path) == "resize");
        for undone in [
            resize(&a, 2048 * MIB, 1024 * MIB),
            resize(&a, 1024 * MIB, 2048 * MIB),
        ] {
            let impatient = backend(&path, &[&a, &b], &[]).with_patience(Duration::from_millis(1));
            let _ = revert(&impatient, &undone);
            assert_eq!(exclusive(&path), "resize", "{undone}");
        }
        bench.speed_up();
        assert!(by_hand.join().unwrap().status.success());
    });
    assert_eq!(member(&pool.look().unwrap(), &b).unwrap().share, Bytes(512 * MIB));
}

#[test]
fn a_device_that_was_shrunk_and_removed_comes_back_with_the_share_that_it_had() {
    let mut bench = Bench::new();
    let (a, _, pool) = two_devices(&mut bench);
    apply(&pool, &resize(&a, 2048 * MIB, 1024 * MIB)).unwrap();
    let before = pool.look().unwrap();
    let removal = remove(&before, &a);
    apply(&pool, &removal).unwrap();
    for _ in 0..2 {
        revert(&pool, &removal).unwrap();
        let share = member(&pool.look().unwrap(), &a).unwrap().share;
        assert_eq!(share, Bytes(1024 * MIB));
    }
    apply(&pool, &removal).unwrap();
    let larger = Change::Remove {
        device: name(&a),
        share: Bytes(4096 * MIB),
        allocated: Bytes::ZERO,
    };
    let error = revert(&pool, &larger).unwrap_err().to_string();
    assert!(error.contains("not at least the 4294967296 bytes"), "{error}");
}

#[test]
fn a_spare_that_was_added_to_a_full_pool_can_be_given_back() {
    let mut bench = Bench::new();
    let [a, b] = [bench.device(1024 * MIB), bench.device(1024 * MIB)];
    let path = bench.pool(&[&a], &["-d", "single", "-m", "dup"]);
    let shown = path.display().to_string();
    let pool = backend(&path, &[&b], &[]);
    fill(&path.join("data"), 700 * MIB, 5);
    run("btrfs", &["filesystem", "sync", &shown]);
    let state = pool.look().unwrap();
    let full = member(&state, &a).unwrap();
    assert!(full.share.minus(full.allocated) < Bytes(64 * MIB), "{full:?}");
    let before = shape(&pool);
    let addition = add(&b, 1024 * MIB);
    apply(&pool, &addition).unwrap();
    let ears = Ears::default();
    pool.revert(&addition, &ears.progress()).unwrap();
    assert!(!ears.heard("packing data closer"));
    assert_eq!(shape(&pool), before);
}

#[test]
fn what_another_person_runs_is_waited_for_and_not_for_ever() {
    let mut bench = Bench::new();
    let (_, b, pool) = two_devices(&mut bench);
    let path = path_of(&bench);
    let shown = path.display().to_string();
    let impatient = backend(&path, &[], &[]).with_patience(Duration::from_secs(1));
    let grow = resize(&b, 2048 * MIB, 1024 * MIB);
    bench.slow_down(&b, SLOW);
    std::thread::scope(|scope| {
        let by_hand = scope.spawn(|| try_run("btrfs", &["balance", "start", "-d", &shown]));
        until("it balances", || exclusive(&path) == "balance");
        let error = apply(&impatient, &grow).unwrap_err();
        assert!(
            error.to_string().contains("pool default is busy: \"balance\""),
            "{error}"
        );
        let ears = Ears::default();
        pool.apply(&grow, &ears.progress()).unwrap();
        assert!(ears.heard("waiting: \"balance\" runs on pool default"));
        assert!(by_hand.join().unwrap().status.success());
    });
    bench.speed_up();
}

#[test]
fn a_spare_that_holds_anything_or_is_used_is_refused_by_name_and_unchanged() {
    let mut bench = Bench::new();
    let a = bench.device(1024 * MIB);
    let path = bench.pool(&[&a], &[]);
    let size = 512 * MIB;
    let [ext4, btrfs, dos, gpt, swap, mounted, held, small] =
        [size, size, size, size, size, size, size, 108 * MIB].map(|size| bench.device(size));
    run("mkfs.ext4", &["-q", "-L", "photos", &ext4]);
    run("mkfs.btrfs", &["-q", &btrfs]);
    write_dos(&dos);
    write_gpt_copy(&gpt, size);
    run("mkswap", &[&swap]);
    run("mkfs.ext4", &["-q", &mounted]);
    bench.mount(&mounted, &[]);
    let holder = bench.device_over(Path::new(&held), &[]);
    let file = bench.path("read-only");
    let read_only = bench.device_on(&file, size, &["--read-only"]);
    let empty = bench.device_on(&bench.path("empty"), 0, &[]);
    let other = bench.device(1024 * MIB);
    bench.pool(&[&other], &[]);

    let cases = [
        (
            &ext4,
            "holds a signature of ext4 with the label photos; nothing is ever wiped",
        ),
        (&btrfs, "holds a signature of btrfs"),
        (&dos, "holds a partition table (dos)"),
        (&gpt, "holds a"),
        (&swap, "holds a signature of swap"),
        (&mounted, "is mounted on "),
        (&held, "is in use by loop"),
        (&small, "has 108.00 MiB; the least that is taken is 109.00 MiB"),
        (&read_only, "is read-only"),
        (&empty, "has no size"),
        (&other, "is part of the mounted btrfs"),
    ];
    let spares: Vec<&str> = cases.iter().map(|(device, _)| device.as_str()).collect();
    let pool = backend(&path, &spares, &[]);
    let sums = |devices: &[&str]| -> Vec<u32> {
        // What is mounted changes by itself.
        let still = devices
            .iter()
            .filter(|device| **device != mounted && **device != other);
        still.map(|device| checksum(Path::new(device))).collect()
    };
    let before = sums(&spares);
    let state = pool.look().unwrap();
    for ((device, why), spare) in cases.iter().zip(&state.spares) {
        let problem = spare
            .problem
            .as_deref()
            .unwrap_or_else(|| panic!("{device} is taken"));
        assert!(problem.starts_with(&format!("{device} {why}")), "{problem}");
        let error = apply(&pool, &add(device, spare.capacity.0)).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("{device} {why}")),
            "{error}"
        );
        assert_eq!(error.retry(), Retry::Never);
        revert(&pool, &add(device, spare.capacity.0)).unwrap();
    }
    assert_eq!(sums(&spares), before, "a device was written to");
    assert_eq!(shape(&pool).len(), 1);
    bench.detach(&holder);
}

fn write_dos(device: &str) {
    let mut sector = [0_u8; 512];
    sector[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 4, 0]);
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&sector, 0).unwrap();
    file.sync_all().unwrap();
}

/// Only the second copy of a GUID partition table, in the last sectors: what is left when somebody cleared the first
/// MiB.
fn write_gpt_copy(device: &str, size: u64) {
    let last = size / 512 - 1;
    let entries = vec![0_u8; 128 * 128];
    let mut header = [0_u8; 512];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[24..32].copy_from_slice(&last.to_le_bytes());
    header[32..40].copy_from_slice(&1_u64.to_le_bytes());
    header[40..48].copy_from_slice(&34_u64.to_le_bytes());
    header[48..56].copy_from_slice(&(last - 33).to_le_bytes());
    header[56..72].copy_from_slice(&[7; 16]);
    header[72..80].copy_from_slice(&(last - 32).to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    let sum = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&entries, (last - 32) * 512).unwrap();
    file.write_all_at(&header, last * 512).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_spare_that_vanished_changed_or_is_open_is_refused_and_the_pool_as_before() {
    let mut bench = Bench::new();
    let [a, b] = [bench.device(1024 * MIB), bench.device(512 * MIB)];
    let path = bench.pool(&[&a], &[]);
    let link = bench.path("stable-name");
    std::os::unix::fs::symlink(&b, &link).unwrap();
    let stable = link.display().to_string();
    let pool = backend(&path, &[&stable], &[]);
    let before = shape(&pool);
    let added = add(&stable, 512 * MIB);

    let other_size = add(&stable, 600 * MIB);
    let error = apply(&pool, &other_size).unwrap_err();
    assert!(error.to_string().contains("may be another device now"), "{error}");

    let opened = std::fs::File::options().write(true).open(&b).unwrap();
    let error = apply(&pool, &added).unwrap_err();
    assert!(error.to_string().contains("has it open"), "{error}");
    drop(opened);
    // Who only reads is gone in a moment.
    let reads = std::fs::File::open(&b).unwrap();
    apply(&pool, &added).unwrap();
    pool.revert(&added, &Ears::default().progress()).unwrap();
    drop(reads);
    assert_eq!(shape(&pool), before);

    std::fs::remove_file(&link).unwrap();
    let spare = &pool.look().unwrap().spares[0];
    assert!(
        spare.problem.as_deref().unwrap().contains("does not exist"),
        "{spare:?}"
    );
    let error = apply(&pool, &added).unwrap_err();
    assert!(error.to_string().contains(&stable), "{error}");
    revert(&pool, &added).unwrap();
    assert_eq!(shape(&pool), before);
}

#[test]
fn a_device_that_fails_while_it_is_added_leaves_the_pool_as_before() {
    let mut bench = Bench::new();
    let a = bench.device(1024 * MIB);
    let path = bench.pool(&[&a], &[]);
    fill(&path.join("data"), 100 * MIB, 3);
    let sums = checksums(&path);
    let full = bench.mount("tmpfs", &["-t", "tmpfs", "-o", "size=16M"]);
    let b = bench.device_on(&full.join("disk"), 1024 * MIB, &[]);
    try_run(
        "dd",
        &["if=/dev/zero", &format!("of={}/filler", full.display()), "bs=1M"],
    );
    let pool = backend(&path, &[&b], &[]);
    let before = shape(&pool);
    let added = add(&b, 1024 * MIB);
    let error = apply(&pool, &added).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("{b} failed while it was added: ")),
        "{text}"
    );
    assert!(text.ends_with("pool default is as before"), "{text}");
    revert(&pool, &added).unwrap();
    assert_eq!(shape(&pool), before);
    assert_eq!(checksums(&path), sums);
}

#[test]
fn a_device_that_fails_while_data_moves_onto_it_loses_nothing() {
    let mut bench = Bench::new();
    let a = bench.device(1024 * MIB);
    let path = bench.pool(&[&a], &[]);
    fill(&path.join("data"), 300 * MIB, 3);
    let sums = checksums(&path);
    let small = bench.mount("tmpfs", &["-t", "tmpfs", "-o", "size=150M"]);
    let b = bench.device_on(&small.join("disk"), 1024 * MIB, &[]);
    let pool = backend(&path, &[&a, &b], &[]);
    apply(&pool, &add(&b, 1024 * MIB)).unwrap();
    let removal = remove(&pool.look().unwrap(), &a);
    let error = apply(&pool, &removal).unwrap_err();
    assert!(error.to_string().contains(&a), "{error}");
    assert_eq!(checksums(&path), sums, "{error}");
}

#[test]
fn a_pool_never_has_fewer_devices_than_its_profiles_need() {
    let mut bench = Bench::new();
    let [a, b] = [bench.device(1024 * MIB), bench.device(1024 * MIB)];
    let path = bench.pool(&[&a, &b], &["-d", "single", "-m", "raid1"]);
    let pool = backend(&path, &[], &[]);
    let state = pool.look().unwrap();
    assert_eq!((state.data, state.metadata), (Profile::Single, Profile::Raid1));
    let error = apply(&pool, &remove(&state, &b)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pool default would be left with 1 device(s), and its metadata is RAID1 and needs 2"
    );
    run(
        "btrfs",
        &[
            "balance",
            "start",
            "-f",
            "-mconvert=single",
            &path.display().to_string(),
        ],
    );
    let state = pool.look().unwrap();
    assert_eq!(state.metadata, Profile::Single);
    apply(&pool, &remove(&state, &b)).unwrap();
    let error = apply(&pool, &remove(&pool.look().unwrap(), &a)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{a} is the only device of pool default")
    );
}

#[test]
fn a_pool_that_misses_a_device_says_so_and_gives_nothing_up() {
    let mut bench = Bench::new();
    let [a, b, c] = [(); 3].map(|()| bench.device(1024 * MIB));
    let path = bench.pool(&[&a, &b, &c], &["-d", "raid1", "-m", "raid1"]);
    let pool = backend(&path, &[&a, &b, &c], &[]);
    let removal = remove(&pool.look().unwrap(), &b);
    let backing = format!("/sys/block/{}/loop/backing_file", c.trim_start_matches("/dev/"));
    let backing = std::fs::read_to_string(backing).unwrap();
    bench.unmount(&path);
    run("btrfs", &["device", "scan", "--forget", &c]);
    bench.detach(&c);
    run("mount", &["-o", "degraded", &a, &path.display().to_string()]);
    let state = pool.look().unwrap();
    let missing: Vec<_> = state
        .members
        .iter()
        .filter(|member| member.presence == Presence::Missing)
        .collect();
    assert_eq!(missing.len(), 1, "{state:?}");
    let error = apply(&pool, &removal).unwrap_err();
    assert!(error.to_string().contains("misses a device"), "{error}");
    assert!(
        !pool.is_done(&removal).unwrap(),
        "a member that is there is no removed one"
    );

    // Its device comes back while the pool goes on without it: to wipe it is no advice.
    let again = bench.device_over(Path::new(backing.trim()), &[]);
    let pool = backend(&path, &[&a, &b, &again], &[]);
    let state = pool.look().unwrap();
    let problem = state.spares[0].problem.clone().unwrap();
    assert!(
        problem.contains("this pool misses") && problem.contains("do not wipe it"),
        "{problem}"
    );
    assert!(!problem.contains("wipefs"), "{problem}");
    run("umount", &[&path.display().to_string()]);
}

#[test]
fn what_finds_no_room_stays_where_it_is_and_the_pool_writable() {
    let mut bench = Bench::new();
    let [a, b] = [bench.device(1024 * MIB), bench.device(1024 * MIB)];
    let path = bench.pool(&[&a, &b], &["-d", "single", "-m", "dup"]);
    let pool = backend(&path, &[], &[]);
    fill(&path.join("data"), 850 * MIB, 5);
    let sums = checksums(&path);
    let before = shape(&pool);
    let state = pool.look().unwrap();
    let ears = Ears::default();
    let error = pool.apply(&remove(&state, &b), &ears.progress()).unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("no room to remove {b}")),
        "{error}"
    );
    assert!(ears.heard("packing data closer"));
    assert_eq!(shape(&pool), before);
    let error = apply(&pool, &resize(&b, 1024 * MIB, 256 * MIB)).unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("no room to shrink {b}")),
        "{error}"
    );
    assert_eq!(shape(&pool), before);

    fill(&path.join("more"), 300 * MIB, 6);
    let error = apply(&pool, &remove(&pool.look().unwrap(), &b)).unwrap_err();
    assert!(
        error.to_string().contains(" on its devices, and without "),
        "{error}"
    );
    std::fs::remove_file(path.join("more")).unwrap();
    assert_eq!(checksums(&path), sums);
    pool.look().expect("it is writable");
}

/// Every byte of the other device is assigned to half-empty chunks of data. The kernel alone would find no room for
/// the metadata and make the pool read-only.
#[test]
fn a_device_whose_metadata_finds_no_chunk_leaves_after_data_was_packed_closer() {
    let mut bench = Bench::new();
    let [a, b] = [bench.device(1024 * MIB), bench.device(1024 * MIB)];
    let path = bench.pool(&[&b], &[]);
    let shown = path.display().to_string();
    let pool = backend(&path, &[&a], &[]);
    let write = |files: std::ops::Range<u64>| {
        for file in files {
            fill(&path.join(file.to_string()), 4 * MIB, file);
        }
    };
    write(0..190);
    apply(&pool, &add(&a, 1024 * MIB)).unwrap();
    write(190..430);
    for file in (0..430).filter(|file| *file < 190 || file % 5 < 3) {
        std::fs::remove_file(path.join(file.to_string())).unwrap();
    }
    run("btrfs", &["filesystem", "sync", &shown]);
    let state = pool.look().unwrap();
    let other = member(&state, &a).unwrap();
    assert!(other.share.minus(other.allocated) < Bytes(100 * MIB), "{other:?}");
    let sums = checksums(&path);
    let removal = remove(&state, &b);
    let ears = Ears::default();
    pool.apply(&removal, &ears.progress()).unwrap();
    assert!(ears.heard("packing data closer"));
    assert!(pool.is_done(&removal).unwrap());
    pool.look().expect("it is writable");
    assert_eq!(checksums(&path), sums);
}

#[test]
fn a_share_that_somebody_changed_is_left_alone() {
    let mut bench = Bench::new();
    let (_, b, pool) = two_devices(&mut bench);
    let removal = remove(&pool.look().unwrap(), &b);
    let path = path_of(&bench).display().to_string();
    run("btrfs", &["filesystem", "resize", "1:1536M", &path]);
    let before = shape(&pool);
    for change in [removal, resize(&b, 2048 * MIB, 1024 * MIB)] {
        let error = apply(&pool, &change).unwrap_err();
        assert!(error.to_string().contains("somebody changed it"), "{error}");
    }
    let error = apply(&pool, &resize(&b, 1536 * MIB, 4096 * MIB)).unwrap_err();
    assert!(
        error.to_string().contains(&format!("{b} has 2147483648 bytes")),
        "{error}"
    );
    assert_eq!(shape(&pool), before);
}

#[test]
fn a_pool_that_cannot_be_used_says_why_and_the_way_out() {
    let mut bench = Bench::new();
    let a = bench.device(1024 * MIB);
    let path = bench.pool(&[&a], &[]);
    let shown = path.display().to_string();
    let pool = backend(&path, &[], &[]);
    let look = |pool: &Btrfs| pool.look().unwrap_err().to_string();

    run("mount", &["-o", "remount,ro", &shown]);
    assert!(look(&pool).contains("read-only"), "{}", look(&pool));
    assert!(apply(&pool, &resize(&a, 1024 * MIB, 512 * MIB)).is_err());
    pool.take_snapshot().unwrap_err();
    pool.remove_snapshot().expect("what was not taken is not there");
    run("mount", &["-o", "remount,rw", &shown]);
    pool.take_snapshot().unwrap();
    run("mount", &["-o", "remount,ro", &shown]);
    pool.remove_snapshot().expect_err("one that is there stays there");
    run("mount", &["-o", "remount,rw", &shown]);
    pool.remove_snapshot().unwrap();
    pool.look().unwrap();

    std::fs::create_dir(path.join("folder")).unwrap();
    let bound = bench.mount(&path.join("folder").display().to_string(), &["--bind"]);
    let refusal = look(&backend(&bound, &[], &[]));
    assert!(refusal.contains("shows a folder within a btrfs"), "{refusal}");
    bench.unmount(&bound);

    bench.unmount(&path);
    assert!(look(&pool).contains("is not mounted"), "{}", look(&pool));
    let other = bench.mount("tmpfs", &["-t", "tmpfs"]);
    assert!(look(&backend(&other, &[], &[])).contains("is tmpfs (tmpfs) and not the btrfs"));
}

#[test]
fn a_snapshot_holds_all_of_the_pool_or_is_not_taken() {
    let mut bench = Bench::new();
    let a = bench.device(1024 * MIB);
    let whole = bench.pool(&[&a], &[]);
    run(
        "btrfs",
        &["subvolume", "create", &whole.join("isard").display().to_string()],
    );
    // The pool may be a subvolume of a larger whole, whose others are not its own.
    run(
        "btrfs",
        &["subvolume", "create", &whole.join("other").display().to_string()],
    );
    let path = bench.mount(&a, &["-o", "subvol=isard"]);
    let nested = path.join("nested one");
    run("btrfs", &["subvolume", "create", &nested.display().to_string()]);
    run(
        "btrfs",
        &["subvolume", "create", &nested.join("deep").display().to_string()],
    );
    // Not synced: the kernel writes out what was written before.
    std::fs::write(path.join("file"), "before").unwrap();

    let refusal = backend(&path, &[], &[]).take_snapshot().unwrap_err().to_string();
    assert!(
        refusal.contains("its nested subvolumes: nested one; move them out of")
            && refusal.contains("left_out"),
        "{refusal}"
    );
    assert!(!path.join(".hostler/backup").exists());

    let pool = backend(&path, &[], &["nested one"]);
    assert_eq!(pool.found_snapshot().unwrap(), None);
    let snapshot = pool.take_snapshot().unwrap();
    assert_eq!(snapshot.path, path.join(".hostler/backup"));
    std::fs::write(path.join("file"), "after").unwrap();
    assert_eq!(
        pool.take_snapshot().unwrap(),
        snapshot,
        "the one that is there is taken"
    );
    assert_eq!(pool.found_snapshot().unwrap(), Some(snapshot.clone()));
    assert_eq!(
        std::fs::read_to_string(snapshot.path.join("file")).unwrap(),
        "before"
    );
    std::fs::write(snapshot.path.join("file"), "no").unwrap_err();

    pool.remove_snapshot().unwrap();
    pool.remove_snapshot().unwrap();
    assert_eq!(pool.found_snapshot().unwrap(), None);
    assert!(!snapshot.path.exists());

    // What is not ours is neither taken for ours nor deleted.
    std::fs::create_dir(&snapshot.path).unwrap();
    let refusal = pool.take_snapshot().unwrap_err().to_string();
    assert!(refusal.contains("is in the way"), "{refusal}");
    pool.remove_snapshot().unwrap_err();
    std::fs::remove_dir(&snapshot.path).unwrap();
    run(
        "btrfs",
        &["subvolume", "create", &snapshot.path.display().to_string()],
    );
    assert!(
        pool.found_snapshot()
            .unwrap_err()
            .to_string()
            .contains("writable subvolume")
    );
}

#[test]
fn a_snapshot_shows_all_files_at_one_instant_under_a_writer() {
    let mut bench = Bench::new();
    let a = bench.device(1024 * MIB);
    let path = bench.pool(&[&a], &[]);
    let pool = backend(&path, &[], &[]);
    let count = |folder: &Path, name: &str| -> u64 {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.parse().unwrap()
    };
    let write = |name: &str, count: u64| {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(name))
            .unwrap();
        file.write_all_at(format!("{count:020}").as_bytes(), 0).unwrap();
        file.sync_all().unwrap();
    };
    write("debit", 0);
    write("credit", 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The credit is never ahead of the debit, nor more than one behind.
        scope.spawn(|| {
            let mut next = 1;
            while !stop.load(Ordering::SeqCst) {
                write("debit", next);
                write("credit", next);
                next += 1;
            }
        });
        let mut seen = 0;
        for _ in 0..10 {
            until("the writer goes on", || count(&path, "credit") > seen);
            let snapshot = pool.take_snapshot().unwrap();
            let [debit, credit] = ["debit", "credit"].map(|name| count(&snapshot.path, name));
            assert!(debit == credit || debit == credit + 1, "{debit} {credit}");
            seen = credit;
            pool.remove_snapshot().unwrap();
        }
        stop.store(true, Ordering::SeqCst);
    });
}
