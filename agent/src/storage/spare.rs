//! Whether a device may become part of a pool: it is there, large enough, readable, and nobody's.
//!
//! It only reads. The invariant: a device that holds anything, or that anybody uses, is refused by name with what
//! was found, and nothing here ever writes to one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_common::error::excerpt;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::Deserialize;

use super::block::{Block, Node, names_in};
use crate::command::{CommandFault, Program};
use crate::mount_table::{self, parse_device};

/// Less is refused: the kernel would take two MiB, and mkfs.btrfs asks for this, on which a chunk of each kind fits. One
/// below 256 MiB can leave again and cannot be shrunk (btrfs_ioctl_resize).
pub const SMALLEST: Bytes = Bytes(109 << 20);

/// How much is read at either end.
const PROBED: u64 = 1 << 20;
/// How much of it at once. Each look has a thread of its own, and the allocator keeps what a thread gave back for the
/// next: a buffer for all of it stayed in memory once for each of them.
const AT_ONCE: usize = 16 * 1024;

/// For programs that read a few sectors.
const SOON: Duration = Duration::from_secs(60);

/// `blkid -p` found nothing.
const NOTHING: i32 = 2;
/// `blkid -p` found several things that exclude one another.
const AMBIVALENT: i32 = 8;

/// Checks spare devices with util-linux's programs.
#[derive(Debug, Clone)]
pub struct SpareChecks {
    blkid: Program,
    wipefs: Program,
}

/// A device with nothing against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clean {
    /// The kernel's path of it, which stays what was checked when a link changes.
    pub path: PathBuf,
    /// How large it is.
    pub capacity: Bytes,
}

/// A signature on a device, as `wipefs` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Signature {
    /// Where, hexadecimal.
    pub(super) offset: String,
    /// As `btrfs`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The file system's, if it has one.
    pub(super) uuid: Option<String>,
    /// Its name, if it has one.
    pub(super) label: Option<String>,
}

#[derive(Deserialize)]
struct Signatures {
    signatures: Vec<Signature>,
}

impl SpareChecks {
    /// Finds the programs.
    ///
    /// # Errors
    /// When one is missing.
    pub fn find() -> Result<Self, CommandFault> {
        Ok(Self {
            blkid: Program::find("blkid")?,
            wipefs: Program::find("wipefs")?,
        })
    }

    /// Checks the device at `name`. It opens the device exclusively for a moment: whoever wants to use it at the
    /// same time is refused, so callers do this under one lock.
    ///
    /// # Errors
    /// A sentence that names the device, what is wrong with it, and the way out where there is one.
    pub fn check(&self, name: &Path) -> Result<Clean, String> {
        let shown = name.display();
        let block = match Block::at(name) {
            Ok(Node::Block(block)) => block,
            Ok(Node::Other) => return Err(format!("{shown} is not a block device")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("{shown} does not exist; is the device connected?"));
            }
            Err(error) => return Err(format!("{shown} cannot be looked at: {error}")),
        };
        let kernel_name = match block.name() {
            Ok(kernel_name) => kernel_name,
            Err(_) => return Err(format!("{shown} is a node without a device; it has vanished")),
        };
        let capacity = block.size().map_err(unknown(name, "its size"))?;
        if capacity == Bytes::ZERO {
            return Err(format!(
                "{shown} has no size: no medium, or an unused loop device"
            ));
        }
        if capacity < SMALLEST {
            return Err(format!(
                "{shown} has {capacity}; the least that is taken is {SMALLEST}"
            ));
        }
        if block
            .is_read_only()
            .map_err(unknown(name, "whether it is writable"))?
        {
            return Err(format!("{shown} is read-only"));
        }
        in_use(name, block, &kernel_name)?;
        // The kernel's own path: devices of the device mapper have it too.
        let path = Path::new("/dev").join(kernel_name.replace('!', "/"));
        let path = if block.is_at(&path) { path } else { name.to_owned() };
        read_ends(name, capacity)?;
        self.holds_nothing(name)?;
        Ok(Clean { path, capacity })
    }

    /// Checks the device at `name` as above, and that no process has it open: too much work for every look.
    ///
    /// # Errors
    /// As above.
    pub fn check_thoroughly(&self, name: &Path) -> Result<Clean, String> {
        let clean = self.check(name)?;
        if let Ok(Node::Block(block)) = Block::at(name)
            && let Some(opener) = block.opener().map_err(unknown(name, "who has it open"))?
        {
            return Err(format!("{} is in use: {opener} has it open", name.display()));
        }
        Ok(clean)
    }

    fn holds_nothing(&self, name: &Path) -> Result<(), String> {
        let shown = name.display();
        let probed = self
            .blkid
            .command(["-p", "-o", "export", &shown.to_string()])
            .run(SOON)
            .map_err(|fault| format!("{shown}: {fault}"))?;
        let advice =
            format!("nothing is ever wiped; `wipefs -a {shown}` clears it when nobody needs what it holds");
        match probed.status.code() {
            Some(NOTHING) => {}
            Some(AMBIVALENT) => return Err(format!("{shown} holds several signatures at once; {advice}")),
            Some(0) => match found(&probed.stdout) {
                None => {}
                Some(found) => return Err(format!("{shown} holds {found}; {advice}")),
            },
            _ => {
                let why = probed.stderr.trim();
                return Err(format!(
                    "{shown}: blkid cannot tell what it holds: {} {why}",
                    probed.status
                ));
            }
        }
        // It finds remains that are no valid whole, as the second copy of a partition table.
        let signatures = self.signatures(name)?;
        match signatures.first() {
            None => Ok(()),
            Some(Signature { kind, offset, .. }) => Err(format!(
                "{shown} holds a signature of {kind} at {offset}; {advice}"
            )),
        }
    }

    /// All signatures on the device.
    pub(super) fn signatures(&self, name: &Path) -> Result<Vec<Signature>, String> {
        let shown = name.display();
        let output = self
            .wipefs
            .command(["--json", "--no-act", &shown.to_string()])
            .succeed(SOON)
            .map_err(|fault| format!("{shown}: {fault}"))?;
        // Debian's says nothing at all where others print an empty list.
        if output.stdout.trim().is_empty() {
            return Ok(Vec::new());
        }
        read_signatures(&output.stdout)
            .map_err(|error| format!("{shown}: cannot read what wipefs prints: {error}"))
    }

    /// Clears one signature. The caller knows that it is its own.
    pub(super) fn clear(&self, name: &Path, signature: &Signature) -> Result<(), CommandFault> {
        let path = name.display().to_string();
        let arguments = ["--offset", &signature.offset, "--types", &signature.kind, &path];
        self.wipefs.command(arguments).succeed(SOON)?;
        Ok(())
    }
}

fn unknown(name: &Path, what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{}: cannot read {what}: {error}", name.display())
}

/// Somebody uses it, in one of the many ways.
fn in_use(name: &Path, block: Block, kernel_name: &str) -> Result<(), String> {
    let shown = name.display();
    let mounts = mount_table::mounts().map_err(unknown(name, "what is mounted"))?;
    if let Some(mount) = mounts.iter().find(|mount| mount.device == block.number()) {
        return Err(format!("{shown} is mounted on {}", mount.path.display()));
    }
    if let Some(uuid) = btrfs_with(kernel_name) {
        return Err(format!("{shown} is part of the mounted btrfs {uuid}"));
    }
    let swaps = mount_table::swaps().map_err(unknown(name, "what is swap"))?;
    if swaps.iter().any(|swap| block.is_at(swap)) {
        return Err(format!("{shown} is in use as swap"));
    }
    let holders = block.holders().map_err(unknown(name, "who holds it"))?;
    if !holders.is_empty() {
        return Err(format!("{shown} is in use by {}", holders.join(", ")));
    }
    let partitions = block.partitions().map_err(unknown(name, "its partitions"))?;
    if !partitions.is_empty() {
        return Err(format!("{shown} has partitions: {}", partitions.join(", ")));
    }
    Ok(())
}

/// The mounted btrfs that a device is part of: mountinfo names only one device of each.
fn btrfs_with(kernel_name: &str) -> Option<String> {
    let all = Path::new("/sys/fs/btrfs");
    let mut uuids = names_in(all).ok()?.into_iter();
    uuids.find(|uuid| {
        let device = all.join(uuid).join("devices").join(kernel_name).join("dev");
        let number = std::fs::read_to_string(device).unwrap_or_default();
        parse_device(&number).is_some()
    })
}

fn read_ends(name: &Path, capacity: Bytes) -> Result<(), String> {
    let shown = name.display();
    let mut device = open_alone(name).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => format!("{shown} is in use: another program has it open for itself alone"),
        _ => format!("{shown} cannot be opened: {error}"),
    })?;
    let length = PROBED.min(capacity.0);
    for offset in [0, capacity.0 - length] {
        device
            .seek(SeekFrom::Start(offset))
            .and_then(|_| read_through(&mut device, length))
            .map_err(|error| format!("{shown} cannot be read at byte {offset}: {error}"))?;
    }
    Ok(())
}

/// Reads the next `length` bytes, and keeps none of them.
fn read_through(device: &mut impl Read, length: u64) -> io::Result<()> {
    let mut buffer = [0; AT_ONCE];
    let mut rest = length;
    while rest > 0 {
        let next = AT_ONCE.min(usize::try_from(rest).unwrap_or(AT_ONCE));
        device.read_exact(&mut buffer[..next])?;
        rest -= next as u64;
    }
    Ok(())
}

/// The kernel lets one open a block device so, and refuses who asks while it is mounted, claimed or built upon.
fn open_alone(name: &Path) -> io::Result<File> {
    let flags = OFlag::O_EXCL | OFlag::O_NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(name)
}

/// What `wipefs --json` prints.
pub(super) fn read_signatures(text: &str) -> Result<Vec<Signature>, String> {
    let read: Result<Signatures, _> = serde_json::from_str(text);
    read.map(|read| read.signatures)
        .map_err(|error| excerpt(&error.to_string()).into_owned())
}

/// What `blkid -p -o export` found, for people. A partition is told apart from what is in it.
pub(super) fn found(export: &str) -> Option<String> {
    let value = |key: &str| {
        let mut pairs = export.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let mut found = match (value("TYPE"), value("PTTYPE")) {
        (Some(kind), _) => format!("a signature of {}", excerpt(kind)),
        (None, Some(table)) => format!("a partition table ({})", excerpt(table)),
        (None, None) => {
            let known = ["DEVNAME", "PART_ENTRY_"];
            let other =
                |line: &&str| !line.trim().is_empty() && !known.iter().any(|key| line.starts_with(key));
            let line = export.lines().find(other)?;
            format!("something that blkid knows as {}", excerpt(line))
        }
    };
    if let Some(label) = value("LABEL") {
        found.push_str(&format!(" with the label {}", excerpt(label)));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blkid_finds_is_told_in_words() {
        let ext4 = "DEVNAME=/dev/loop2\nLABEL=old\nUUID=5e95fbd4\nVERSION=1.0\nTYPE=ext4\nUSAGE=filesystem\n";
        assert_eq!(found(ext4).unwrap(), "a signature of ext4 with the label old");
        assert_eq!(
            found("DEVNAME=/dev/sdb\nPTUUID=1\nPTTYPE=gpt\n").unwrap(),
            "a partition table (gpt)"
        );
        let partition = "DEVNAME=/dev/sdb1\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_NUMBER=1\n";
        assert_eq!(found(partition), None, "being a partition is no content");
        assert!(
            found(&format!("{partition}SYSTEM_ID=x\n"))
                .unwrap()
                .contains("SYSTEM_ID")
        );
    }

    #[test]
    fn an_end_is_read_to_its_last_byte_and_a_device_that_ends_before_is_an_error() {
        let length = AT_ONCE as u64 * 2 + 1;
        let mut device = io::repeat(7).take(length);
        read_through(&mut device, length).unwrap();
        assert_eq!(device.limit(), 0);
        let mut short = io::repeat(7).take(length - 1);
        assert!(read_through(&mut short, length).is_err());
    }

    #[test]
    fn what_is_no_device_is_refused_by_name() {
        let checks = SpareChecks::find().unwrap();
        for (path, why) in [
            ("/dev/no-such-device", "/dev/no-such-device does not exist"),
            ("/dev/null", "/dev/null is not a block device"),
            ("/etc/hostname", "/etc/hostname is not a block device"),
        ] {
            let refusal = checks.check(Path::new(path)).unwrap_err();
            assert!(refusal.starts_with(why), "{refusal}");
        }
    }
}
