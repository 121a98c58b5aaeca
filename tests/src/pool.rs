//! A real btrfs pool on loop devices, with a restic repository: made for one test, gone with it.
//!
//! Needs root, `mkfs.btrfs`, `losetup` and `restic`. Nothing of the machine's own devices is touched.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Every file of a tree with a hash of its content.
pub type Checksums = BTreeMap<PathBuf, u64>;

/// A mounted pool, its spare devices, and the repository of its backups.
pub struct LoopPool {
    dir: TempDir,
    loops: Vec<String>,
}

impl LoopPool {
    /// A pool of devices with these sizes in MiB, with others that are spare.
    ///
    /// # Panics
    /// When the machine does not let it be made: no root, no loop devices, no btrfs.
    pub fn make(members: &[u64], spares: &[u64]) -> Self {
        Self::with(members, spares, &["--data", "single", "--metadata", "dup"])
    }

    /// The same with other arguments for `mkfs.btrfs`.
    ///
    /// # Panics
    /// As [`Self::make`].
    pub fn with(members: &[u64], spares: &[u64], mkfs: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let mut pool = Self {
            dir,
            loops: Vec::new(),
        };
        for folder in ["files", "devices", "pool"] {
            std::fs::create_dir(pool.path(folder)).expect("a folder");
        }
        let disks: Vec<_> = members
            .iter()
            .chain(spares)
            .enumerate()
            .map(|(number, size)| pool.add_disk(&format!("disk-{number}"), *size))
            .collect();
        let members = &disks[..members.len()];
        let mut arguments = vec!["--quiet"];
        arguments.extend(mkfs);
        arguments.extend(members.iter().map(String::as_str));
        must("mkfs.btrfs", &arguments);
        pool.mount(&[]);
        pool
    }

    /// One more device, with a stable name among the spares. Returns what the kernel calls it.
    ///
    /// # Panics
    /// When there is no loop device for it.
    pub fn add_disk(&mut self, name: &str, mebibytes: u64) -> String {
        let file = self.path("files").join(name);
        let image = std::fs::File::create(&file).expect("an image");
        image.set_len(mebibytes << 20).expect("a sparse image");
        self.attach(&file, name)
    }

    /// A device on a backing file that exists.
    ///
    /// # Panics
    /// When there is no loop device for it.
    pub fn attach(&mut self, file: &Path, name: &str) -> String {
        let device = must("losetup", &["--find", "--show", text(file)])
            .trim()
            .to_owned();
        // Who had the number before may have left it read-only.
        must("blockdev", &["--setrw", &device]);
        std::os::unix::fs::symlink(&device, self.device(name)).expect("a stable name");
        self.loops.push(device.clone());
        device
    }

    /// Mounts the pool.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn mount(&self, options: &[&str]) {
        must("btrfs", &["device", "scan"]);
        let device = must("readlink", &[text(&self.device("disk-0"))]);
        let mut arguments = vec!["-t", "btrfs"];
        arguments.extend(options);
        let mount = self.mount_point();
        arguments.extend([device.trim(), text(&mount)]);
        must("mount", &arguments);
    }

    /// Unmounts the pool.
    ///
    /// # Panics
    /// When somebody uses it.
    pub fn unmount(&self) {
        must("umount", &[text(&self.mount_point())]);
    }

    /// A path beside the pool.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the pool is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.path("pool")
    }

    /// The stable name of a device.
    pub fn device(&self, name: &str) -> PathBuf {
        self.path("devices").join(name)
    }

    /// Where backups go.
    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// Makes the repository.
    ///
    /// # Panics
    /// When restic does not.
    pub fn init_repository(&self) {
        self.write_password("a good password");
        self.restic(&["init"]);
    }

    /// The password that the agent gets.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_password(&self, password: &str) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.path("password");
        let mut options = std::fs::File::options();
        let file = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path);
        file.expect("the file")
            .write_all(password.as_bytes())
            .expect("written");
    }

    /// Plain restic on the repository.
    ///
    /// # Panics
    /// When it fails.
    pub fn restic(&self, arguments: &[&str]) -> String {
        let repository = self.repository();
        let password = self.path("password");
        let mut all = vec![
            "--repo",
            text(&repository),
            "--password-file",
            text(&password),
            "--no-cache",
        ];
        all.extend(arguments);
        must("restic", &all)
    }

    /// The `[storage]` of an agent's configuration, with backups when `backups` says so.
    pub fn configuration(&self, backups: Backups) -> String {
        let storage = format!(
            "[storage]\npool = 'default'\nbackend = 'btrfs'\npath = '{}'\nspare_devices = ['{}/disk-*']\n",
            self.mount_point().display(),
            self.path("devices").display()
        );
        match backups {
            Backups::No => storage,
            Backups::Yes => format!(
                "{storage}[storage.backup]\nrepository = '{}'\npassword_file = '{}'\nread_back = '100 %'\nkeep = {{ last = 3 }}\n",
                self.repository().display(),
                self.path("password").display()
            ),
        }
    }

    /// Fills a folder of the pool with files of these sizes in KiB, of content that does not compress.
    ///
    /// # Panics
    /// When the pool has no room.
    pub fn fill(&self, folder: &str, sizes: &[u64]) {
        let folder = self.mount_point().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut random = std::fs::File::open("/dev/urandom").expect("random bytes");
        for (number, size) in sizes.iter().enumerate() {
            let mut file = std::fs::File::create(folder.join(format!("file-{number}"))).expect("a file");
            let mut part = (&mut random).take(size << 10);
            std::io::copy(&mut part, &mut file).expect("room in the pool");
        }
        must("sync", &["--file-system", text(&self.mount_point())]);
    }

    /// Every file of the pool, read from its devices.
    ///
    /// # Panics
    /// When one cannot be read.
    pub fn checksums(&self) -> Checksums {
        // What the page cache holds says nothing about the devices.
        std::fs::write("/proc/sys/vm/drop_caches", "1").expect("the page cache is dropped");
        checksums(&self.mount_point())
    }

    /// What the kernel says that the pool may use, in bytes.
    ///
    /// # Panics
    /// When it is not mounted.
    pub fn size(&self) -> u64 {
        let said = must(
            "df",
            &["--output=size", "--block-size=1", text(&self.mount_point())],
        );
        said.lines()
            .nth(1)
            .and_then(|line| line.trim().parse().ok())
            .expect("a size")
    }

    /// The devices of the pool, as btrfs lists them.
    ///
    /// # Panics
    /// When it is not mounted.
    pub fn members(&self) -> Vec<String> {
        let said = must(
            "btrfs",
            &["filesystem", "show", "--raw", text(&self.mount_point())],
        );
        let paths = said.lines().filter_map(|line| line.split(" path ").nth(1));
        paths.map(|path| path.trim().to_owned()).collect()
    }

    /// Demands that every block of the pool is whole.
    ///
    /// # Panics
    /// When one is not.
    pub fn scrub(&self) {
        must("btrfs", &["scrub", "start", "-B", text(&self.mount_point())]);
    }
}

/// Whether the pool's agent makes backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backups {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl Drop for LoopPool {
    fn drop(&mut self) {
        // Errors mean that it is gone already; a mount that is busy goes when it is not any more.
        let _ = run("umount", &["--recursive", "--lazy", text(&self.mount_point())]);
        for device in &self.loops {
            let _ = run("losetup", &["--detach", device]);
        }
    }
}

/// Every file below `root` but those of Hostler itself.
///
/// # Panics
/// When one cannot be read.
pub fn checksums(root: &Path) -> Checksums {
    let mut found = Checksums::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is read") {
            let entry = entry.expect("an entry");
            let (path, kind) = (entry.path(), entry.file_type().expect("its kind"));
            if kind.is_dir() && entry.file_name() != ".hostler" {
                folders.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(root).expect("below the root").to_owned();
                found.insert(name, checksum(&path));
            }
        }
    }
    found
}

fn checksum(path: &Path) -> u64 {
    let mut file = std::fs::File::open(path).expect("the file opens");
    let mut hash = DefaultHasher::new();
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part).expect("the file is read") {
            0 => return hash.finish(),
            read => hash.write(&part[..read]),
        }
    }
}

/// Runs a program to its end.
///
/// # Panics
/// When it does not start.
#[allow(clippy::disallowed_methods)] // Tests start programs; the product does so in one place.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    output.unwrap_or_else(|error| panic!("{program} does not start: {error}"))
}

/// Runs a program that must succeed; what it printed.
///
/// # Panics
/// When it does not.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
