//! Real pools for tests: loop devices on files, btrfs on them, and a way to make a device slow.
//!
//! It needs root. The invariant: whatever a bench set up is gone when it is dropped.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hostler_agent::command::{Output, Program};
use hostler_agent::executor::step::{Listener, Progress};
use hostler_agent::storage::btrfs::{Btrfs, Settings};
use hostler_common::rpc::hostler::agent::v1::Measure;
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(120);
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device";

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let command = Program::find(program).unwrap().command(arguments.to_vec());
    command
        .succeed(LONG)
        .unwrap_or_else(|fault| panic!("{fault}"))
        .stdout
}

/// Runs a program to whatever end.
pub fn try_run(program: &str, arguments: &[&str]) -> Output {
    Program::find(program)
        .unwrap()
        .command(arguments.to_vec())
        .run(LONG)
        .unwrap()
}

/// Loop devices and what is mounted, for one test.
pub struct Bench {
    folder: TempDir,
    mounts: Vec<PathBuf>,
    loops: Vec<PathBuf>,
    slow: Vec<String>,
    made: usize,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            mounts: Vec::new(),
            loops: Vec::new(),
            slow: Vec::new(),
            made: 0,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn next(&mut self, kind: &str) -> PathBuf {
        self.made += 1;
        self.path(&format!("{kind}-{}", self.made))
    }

    /// Where the pool made last is mounted.
    pub fn last_mount(&self) -> &Path {
        self.mounts.last().unwrap()
    }

    /// A loop device on a sparse file of this size.
    pub fn device(&mut self, size: u64) -> String {
        let file = self.next("disk");
        self.device_on(&file, size, &[])
    }

    /// A loop device on this file.
    pub fn device_on(&mut self, file: &Path, size: u64, options: &[&str]) -> String {
        let made = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(file)
            .unwrap();
        made.set_len(size).unwrap();
        self.device_over(file, options)
    }

    /// A loop device on what is there.
    pub fn device_over(&mut self, file: &Path, options: &[&str]) -> String {
        let file = file.display().to_string();
        let mut arguments = vec!["--find", "--show"];
        arguments.extend(options);
        arguments.push(&file);
        let device = run("losetup", &arguments).trim().to_owned();
        if options.is_empty() {
            // Who had the number before may have left it read-only.
            run("blockdev", &["--setrw", &device]);
        }
        self.loops.push(PathBuf::from(&device));
        device
    }

    pub fn detach(&mut self, device: &str) {
        run("losetup", &["--detach", device]);
        self.loops.retain(|path| path != Path::new(device));
    }

    /// A btrfs on devices, mounted.
    pub fn pool(&mut self, devices: &[&str], options: &[&str]) -> PathBuf {
        let mut arguments = vec!["-q", "-f"];
        arguments.extend(options);
        arguments.extend(devices);
        run("mkfs.btrfs", &arguments);
        self.mount(devices[0], &[])
    }

    pub fn mount(&mut self, device: &str, options: &[&str]) -> PathBuf {
        let path = self.next("mount");
        std::fs::create_dir(&path).unwrap();
        let shown = path.display().to_string();
        let mut arguments = options.to_vec();
        arguments.extend([device, &shown]);
        run("mount", &arguments);
        self.mounts.push(path.clone());
        path
    }

    pub fn unmount(&mut self, path: &Path) {
        run("umount", &[&path.display().to_string()]);
        self.mounts.retain(|mount| mount != path);
    }

    /// From now on nobody reads more than so much a second from it (the throttle of cgroup v1's root).
    pub fn slow_down(&mut self, device: &str, bytes_per_second: u64) {
        let name = device.trim_start_matches("/dev/");
        let number = std::fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap();
        let number = number.trim().to_owned();
        std::fs::write(THROTTLE, format!("{number} {bytes_per_second}")).unwrap();
        self.slow.push(number);
    }

    pub fn speed_up(&mut self) {
        for number in self.slow.drain(..) {
            std::fs::write(THROTTLE, format!("{number} 0")).unwrap();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // As much of it as is there; a failing test has its own words.
        for number in self.slow.drain(..) {
            let _ = std::fs::write(THROTTLE, format!("{number} 0"));
        }
        for path in self.mounts.iter().rev() {
            let path = path.display().to_string();
            if !try_run("umount", &[&path]).status.success() {
                try_run("umount", &["--lazy", &path]);
            }
        }
        for device in self.loops.iter().rev() {
            try_run("losetup", &["--detach", &device.display().to_string()]);
        }
    }
}

/// The pool `default` on `path`, which may take `spares`.
pub fn backend(path: &Path, spares: &[&str], left_out: &[&str]) -> Btrfs {
    let settings = Settings {
        pool: "default".parse().unwrap(),
        path: path.to_owned(),
        spares: spares.iter().map(|&spare| spare.to_owned()).collect(),
        left_out: left_out.iter().map(PathBuf::from).collect(),
    };
    Btrfs::new(settings).unwrap()
}

/// Asks until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < LONG, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// What runs on the btrfs on `path`.
pub fn exclusive(path: &Path) -> String {
    let show = run(
        "btrfs",
        &["filesystem", "show", "--raw", &path.display().to_string()],
    );
    let (_, rest) = show.split_once("uuid: ").unwrap();
    let uuid = rest.lines().next().unwrap().trim();
    let running = std::fs::read_to_string(format!("/sys/fs/btrfs/{uuid}/exclusive_operation")).unwrap();
    running.trim().to_owned()
}

/// Hears what a step says, and can cancel it.
#[derive(Clone, Default)]
pub struct Ears {
    pub lines: Arc<Mutex<Vec<String>>>,
    pub measures: Arc<Mutex<Vec<Measure>>>,
    cancelled: Arc<AtomicBool>,
}

impl Ears {
    pub fn progress(&self) -> Progress {
        Progress::to(self.clone())
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub fn heard(&self, part: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(part))
    }
}

impl Listener for Ears {
    fn line(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn measure(&self, measure: Measure) {
        self.measures.lock().unwrap().push(measure);
    }

    fn conclusion(&self, words: String) {
        self.line(words);
    }

    fn cancelled(&self) -> Option<String> {
        self.cancelled.load(Ordering::SeqCst).then(|| "ann".to_owned())
    }
}

/// Fills a file with bytes that do not compress. The same seed gives the same bytes.
pub fn fill(path: &Path, size: u64, seed: u64) {
    let mut file = File::create(path).unwrap();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut chunk = vec![0_u8; 1 << 20];
    let mut left = size;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let length = left.min(chunk.len() as u64);
        file.write_all(&chunk[..usize::try_from(length).unwrap()])
            .unwrap();
        left -= length;
    }
    file.sync_all().unwrap();
}

/// The checksum of a file or device, past all caches of it that can be dropped.
pub fn checksum(path: &Path) -> u32 {
    let mut file = File::open(path).unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
    let mut hasher = crc32fast::Hasher::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).unwrap() {
            0 => return hasher.finalize(),
            read => hasher.update(&chunk[..read]),
        }
    }
}

/// The checksums of all files below, by path.
pub fn checksums(folder: &Path) -> BTreeMap<PathBuf, u32> {
    let mut sums = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sums.insert(path.clone(), checksum(&path));
            }
        }
    }
    sums
}
