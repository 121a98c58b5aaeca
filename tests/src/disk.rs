//! Disks that fail: as told, under one directory of one program (`shim/disk.c`, built with the system's compiler), or by being full.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// `EIO`, as the kernel numbers it.
pub const EIO: i32 = 5;
/// `ENOSPC`.
pub const ENOSPC: i32 = 28;

/// The compiled shim. It goes with this value.
#[derive(Debug)]
pub struct Shim {
    dir: TempDir,
}

/// Which writes fail, and how.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The first, from 1: over all files and threads.
    pub at: u64,
    /// How many, from there on.
    pub lasts: u64,
    /// With this error number.
    pub errno: i32,
}

impl Shim {
    /// Compiles it.
    ///
    /// # Panics
    /// When there is no C compiler: what builds SQLite builds this.
    #[allow(clippy::disallowed_methods)] // Tests start programs where they need them.
    pub fn build() -> Self {
        let dir = TempDir::new().expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/disk.c");
        let status = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(dir.path().join("disk.so"))
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(status.expect("cc runs").success(), "the shim is built");
        Self { dir }
    }

    /// Lets `command` meet `fault` below `under`. What failed first is written to `hit`.
    ///
    /// # Panics
    /// When `under` is not there.
    pub fn arm(&self, command: &mut Command, under: &Path, fault: Fault, hit: &Path) {
        let under = std::fs::canonicalize(under).expect("the directory is there");
        command
            .env("LD_PRELOAD", self.dir.path().join("disk.so"))
            .env("HOSTLER_DISK_UNDER", under)
            .env("HOSTLER_DISK_AT", fault.at.to_string())
            .env("HOSTLER_DISK_LASTS", fault.lasts.to_string())
            .env("HOSTLER_DISK_ERRNO", fault.errno.to_string())
            .env("HOSTLER_DISK_HIT", hit);
    }
}

/// A file system of 1 MiB in memory, unmounted at the end.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts it.
    ///
    /// # Panics
    /// When it cannot be mounted: that needs root.
    pub fn mount() -> Self {
        let dir = TempDir::new().expect("a directory");
        run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"], dir.path());
        Self { dir }
    }

    /// Where.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l"], self.dir.path());
    }
}

#[allow(clippy::disallowed_methods)] // Tests start programs where they need them.
fn run(program: &str, arguments: &[&str], path: &Path) {
    let status = Command::new(program).args(arguments).arg(path).status();
    let ended = status.is_ok_and(|status| status.success());
    assert!(ended, "{program} needs root, as all of these tests do");
}

/// Copies the files of a directory that has no folders.
///
/// # Panics
/// When it cannot be copied.
pub fn copy_dir(from: &Path, to: &Path) {
    // A copy of before may hold files that `from` has not.
    if to.exists() {
        std::fs::remove_dir_all(to).expect("the copy of before goes");
    }
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory to copy") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, to.join(name)).expect("a copy");
    }
}
