//! Block devices as the kernel knows them: numbers, sizes, and who is on top of them, from sysfs.
//!
//! It never opens a device. The invariant: a device is known by its number, since it may have many paths.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use hostler_common::bytes::Bytes;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

/// sysfs counts in these, whatever the device's own sectors are (sysfs-block of the kernel's ABI pages).
const SECTOR: u64 = 512;

/// A block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Block {
    number: u64,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// A block device.
    Block(Block),
    /// Something else.
    Other,
}

impl Block {
    /// What is at `path`, through all links.
    pub(super) fn at(path: &Path) -> io::Result<Node> {
        let found = std::fs::metadata(path)?;
        Ok(match found.file_type().is_block_device() {
            true => Node::Block(Self { number: found.rdev() }),
            false => Node::Other,
        })
    }

    /// Whether `path` leads to this device.
    pub(super) fn is_at(self, path: &Path) -> bool {
        matches!(Self::at(path), Ok(Node::Block(block)) if block == self)
    }

    /// Its number, as in `st_rdev`.
    pub(super) fn number(self) -> u64 {
        self.number
    }

    fn folder(self) -> PathBuf {
        PathBuf::from(format!(
            "/sys/dev/block/{}:{}",
            major(self.number),
            minor(self.number)
        ))
    }

    /// The kernel's name for it, as `sdb`.
    pub(super) fn name(self) -> io::Result<String> {
        let folder = std::fs::canonicalize(self.folder())?;
        let name = folder.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    /// How large it is.
    pub(super) fn size(self) -> io::Result<Bytes> {
        let sectors: u64 = number_in(&self.folder().join("size"))?;
        Ok(Bytes(sectors.saturating_mul(SECTOR)))
    }

    /// Whether the kernel refuses to write to it.
    pub(super) fn is_read_only(self) -> io::Result<bool> {
        Ok(number_in(&self.folder().join("ro"))? != 0)
    }

    /// Kernel devices that are built on it, as `dm-0`.
    pub(super) fn holders(self) -> io::Result<Vec<String>> {
        let mut holders = names_in(&self.folder().join("holders"))?;
        // A loop device on a block device does not hold it in the kernel's books.
        for device in names_in(Path::new("/sys/block"))? {
            let backing = Path::new("/sys/block").join(&device).join("loop/backing_file");
            if let Ok(backing) = std::fs::read_to_string(backing)
                && self.is_at(Path::new(backing.trim_end_matches('\n')))
            {
                holders.push(device);
            }
        }
        Ok(holders)
    }

    /// A process that has it open for writing, as a virtual machine whose disk it is. The kernel lets them share it, so
    /// only `/proc` tells, and this process sees all of it as root only. Who reads is passed over: udev and others look
    /// at every device now and then.
    pub(super) fn opener(self) -> io::Result<Option<String>> {
        for process in names_in(Path::new("/proc"))? {
            let folder = Path::new("/proc").join(&process);
            // One that ended meanwhile has nothing open.
            let open = names_in(&folder.join("fd")).unwrap_or_default();
            let is_device = |number: &String| {
                let descriptor = folder.join("fd").join(number);
                let target = std::fs::read_link(&descriptor).unwrap_or_default();
                target.starts_with("/dev")
                    && self.is_at(&descriptor)
                    && is_for_writing(&folder.join("fdinfo").join(number))
            };
            if process.parse::<u32>().is_ok() && open.iter().any(is_device) {
                let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
                return Ok(Some(format!("{} (process {process})", name.trim())));
            }
        }
        Ok(None)
    }

    /// The partitions on it that the kernel knows.
    pub(super) fn partitions(self) -> io::Result<Vec<String>> {
        let folder = self.folder();
        let mut names = names_in(&folder)?;
        names.retain(|name| folder.join(name).join("partition").exists());
        Ok(names)
    }
}

/// Whether a file descriptor is open for writing, by its flags (proc_pid_fdinfo(5)). One whose flags cannot be told is;
/// one that was closed meanwhile is not.
fn is_for_writing(info: &Path) -> bool {
    let info = match std::fs::read_to_string(info) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
        info => info.unwrap_or_default(),
    };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok());
    flags.is_none_or(|flags| OFlag::from_bits_retain(flags).intersection(OFlag::O_ACCMODE) != OFlag::O_RDONLY)
}

/// A number in a file of sysfs.
pub(super) fn number_in(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| {
        let what = format!("{} holds {:?} and no number", path.display(), text.trim());
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// What a folder of sysfs holds, in order.
pub(super) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_block_device_is_one() {
        assert_eq!(Block::at(Path::new("/dev/null")).unwrap(), Node::Other);
        assert_eq!(Block::at(Path::new("/")).unwrap(), Node::Other);
        assert!(Block::at(Path::new("/dev/no-such-device")).is_err());
    }

    #[test]
    fn what_sysfs_says_of_a_device_is_read() {
        // Any machine that runs these tests has one; a container may hide its node.
        for name in names_in(Path::new("/sys/block")).unwrap_or_default() {
            let Ok(Node::Block(block)) = Block::at(&Path::new("/dev").join(&name)) else {
                continue;
            };
            assert_eq!(block.name().unwrap(), name);
            block.size().unwrap();
            block.is_read_only().unwrap();
            block.partitions().unwrap();
            assert!(block.is_at(&Path::new("/dev").join(&name)));
        }
    }
}
