//! What is mounted where, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) path: PathBuf,
    /// Of which type, as `nfs4`.
    pub(super) fstype: String,
    /// From what, as `nas:/isard`.
    pub(super) source: String,
}

/// The mount that a path shows: the last one on exactly that path, which covers those before it.
pub(super) fn at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.path == path)
}

/// All mounts, in the order of mounting.
pub(super) fn read() -> std::io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    // A varying number of optional fields ends with a lone dash.
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    Some(Mount {
        path: PathBuf::from(unescape(before.split(' ').nth(4)?)),
        fstype: after.next()?.to_owned(),
        source: unescape(after.next()?).to_string_lossy().into_owned(),
    })
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
90 22 0:50 / /isard rw,relatime shared:40 master:2 - nfs4 old:/isard rw
91 22 0:51 / /isard rw,relatime - nfs4 nas:/isard\\040one rw,vers=4.2
92 22 0:52 / /with\\040space\\134and\\011tab rw - tmpfs none rw
not a mount
";

    #[test]
    fn the_last_mount_on_a_path_is_the_one_that_it_shows() {
        let mounts = parse(TEXT);
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
        assert!(at(&parse(TEXT), Path::new("/with space\\and\ttab")).is_some());
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("\\"), "\\");
        assert_eq!(unescape("\\777"), "\\777");
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(at(&read().unwrap(), Path::new("/")).is_some());
    }
}
