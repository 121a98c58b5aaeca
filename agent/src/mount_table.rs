//! What is mounted and what is swap, with the devices: from `/proc/self/mountinfo` and `/proc/swaps`
//! (proc_pid_mountinfo(5)).
//!
//! It never touches a mount, so that a hanging one does not hang it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::makedev;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Of which device; for btrfs a number that belongs to no device.
    pub(crate) device: u64,
    /// Which part of the file system, `/` for all of it.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) path: PathBuf,
    /// Of which type, as `btrfs`.
    pub(crate) fstype: String,
    /// From what, as `/dev/sda`.
    pub(crate) source: String,
    /// Whether this mount, or all of its file system, is read-only.
    pub(crate) writing: Writing,
}

/// Whether a mount can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// It can.
    Possible,
    /// It was mounted read-only here.
    NotHere,
    /// The file system is read-only everywhere: mounted so, or the kernel stopped writing after errors.
    Nowhere,
}

/// All mounts, in the order of mounting: the last one on a path covers those before it.
pub(crate) fn mounts() -> std::io::Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse_mounts(&String::from_utf8_lossy(&text)))
}

/// Devices and files that are swap.
pub(crate) fn swaps() -> std::io::Result<Vec<PathBuf>> {
    Ok(parse_swaps(&std::fs::read_to_string("/proc/swaps")?))
}

/// The mount that a path shows.
pub(crate) fn at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.path == path)
}

pub(crate) fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    // A varying number of optional fields ends with a lone dash.
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    let mut after = after.split(' ');
    let (fstype, source, everywhere) = (after.next()?, after.next()?, after.next()?);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        device: parse_device(before.get(2)?)?,
        root: PathBuf::from(unescape(before.get(3)?)),
        path: PathBuf::from(unescape(before.get(4)?)),
        fstype: fstype.to_owned(),
        source: unescape(source).to_string_lossy().into_owned(),
        writing: if read_only(everywhere) {
            Writing::Nowhere
        } else if read_only(before.get(5)?) {
            Writing::NotHere
        } else {
            Writing::Possible
        },
    })
}

/// `8:17`, as the kernel writes a device's number.
pub(crate) fn parse_device(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

pub(crate) fn parse_swaps(text: &str) -> Vec<PathBuf> {
    let lines = text.lines().skip(1);
    let paths = lines.filter_map(|line| line.split_whitespace().next());
    paths.map(|path| PathBuf::from(unescape(path))).collect()
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(text: &str) -> OsString {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                plain.push(value);
                at += 4;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
43 27 0:39 /isard /srv/with\\040space rw,relatime - btrfs /dev/loop0 rw,discard=async,subvolid=256,subvol=/isard
44 27 0:40 / /srv/forced rw,relatime shared:3 - btrfs /dev/sdb ro,space_cache=v2,subvolid=5,subvol=/
45 27 0:41 / /srv/bound ro,noatime - btrfs /dev/sdc rw,space_cache=v2
not a mount
";

    #[test]
    fn a_mount_tells_its_device_its_part_and_who_made_it_read_only() {
        let mounts = parse_mounts(TEXT);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[0].device, makedev(8, 1));
        let part = at(&mounts, Path::new("/srv/with space")).unwrap();
        assert_eq!(
            (part.root.as_path(), part.fstype.as_str()),
            (Path::new("/isard"), "btrfs")
        );
        let writing: Vec<_> = mounts.iter().map(|mount| mount.writing).collect();
        assert_eq!(
            writing,
            [
                Writing::Possible,
                Writing::Possible,
                Writing::Nowhere,
                Writing::NotHere
            ]
        );
        assert_eq!(at(&mounts, Path::new("/srv")), None);
    }

    #[test]
    fn swaps_are_read_without_their_heading() {
        let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                    /dev/sda2                               partition\t8388604\t\t0\t\t-2\n\
                    /swap\\040file                           file\t\t1024\t\t0\t\t-3\n";
        assert_eq!(
            parse_swaps(text),
            [Path::new("/dev/sda2"), Path::new("/swap file")]
        );
    }

    const SHARED: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:50 / /isard rw,relatime shared:40 master:2 - nfs4 old:/isard rw
91 22 0:51 / /isard rw,relatime - nfs4 nas:/isard\\040one rw,vers=4.2
92 22 0:52 / /with\\040space\\134and\\011tab rw - tmpfs none rw
not a mount
";

    #[test]
    fn the_last_mount_on_a_path_is_the_one_that_it_shows() {
        let mounts = parse_mounts(SHARED);
        assert_eq!(mounts.len(), 4);
        let mount = at(&mounts, Path::new("/isard")).unwrap();
        assert_eq!(
            (mount.source.as_str(), mount.fstype.as_str()),
            ("nas:/isard one", "nfs4")
        );
        assert_eq!(at(&mounts, Path::new("/isard/below")), None);
    }

    #[test]
    fn octal_escapes_are_read() {
        assert!(at(&parse_mounts(SHARED), Path::new("/with space\\and\ttab")).is_some());
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("\\"), "\\");
        assert_eq!(unescape("\\777"), "\\777");
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(at(&mounts().unwrap(), Path::new("/")).is_some());
    }
}
