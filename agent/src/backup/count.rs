//! Counts what lies below a folder, by its own walk, so that restic's figures can be held against something that
//! is not restic's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;
use thiserror::Error;

use super::restic::fault::ResticFault;
use super::restic::messages::{Node, Snapshot};
use super::restic::repository::Ear;
use crate::executor::step::StepError;

/// How many entries are counted between two looks for a cancel.
const LOOK_EVERY: u32 = 1000;

/// Regular files and their apparent sizes. A file with two names counts twice, as restic counts it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn add_node(&mut self, node: &Node) {
        if node.kind == "file" {
            self.add(node.size);
        }
    }

    /// From the tags of a backup, if it has them.
    pub(super) fn of(backup: &Snapshot) -> Option<Self> {
        Some(Self {
            files: backup.tag("files:")?.parse().ok()?,
            bytes: backup.tag("bytes:")?.parse().ok()?,
        })
    }

    /// Both as tags.
    pub(super) fn tags(self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([("bytes", self.bytes), ("files", self.files)])
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.files == 1 { "file" } else { "files" };
        write!(f, "{} {files}, {}", self.files, Bytes(self.bytes))
    }
}

/// Why something could not be counted.
#[derive(Debug, Error)]
pub(super) enum CountFault {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Stopped(#[from] ResticFault),
}

impl From<CountFault> for StepError {
    fn from(fault: CountFault) -> Self {
        match fault {
            CountFault::Stopped(fault) => fault.into(),
            fault @ CountFault::Read { .. } => Self::new(&fault, Retry::Never),
        }
    }
}

/// Counts what is below `root`, but not below its entry `but`.
pub(super) fn walk(root: &Path, but: Option<&str>, ear: &Ear<'_>) -> Result<Count, CountFault> {
    let mut count = Count::default();
    let mut seen = 0_u32;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let fault = |path: &Path, source| CountFault::Read {
            path: path.to_owned(),
            source,
        };
        for entry in std::fs::read_dir(&folder).map_err(|source| fault(&folder, source))? {
            seen = seen.wrapping_add(1);
            if seen.is_multiple_of(LOOK_EVERY) {
                ear.check()?;
            }
            let entry = entry.map_err(|source| fault(&folder, source))?;
            if but.is_some_and(|but| folder == root && entry.file_name() == OsStr::new(but)) {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(|source| fault(&path, source))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                // Of the entry itself: it does not follow links.
                count.add(entry.metadata().map_err(|source| fault(&path, source))?.len());
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_by_name_and_nothing_else_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("a/.hostler")).unwrap();
        std::fs::create_dir(path(".hostler")).unwrap();
        for (name, text) in [
            ("a/x", "12345"),
            ("a/.hostler/y", "1"),
            (".hostler/z", "123"),
            ("-n\n", ""),
        ] {
            std::fs::write(path(name), text).unwrap();
        }
        std::fs::hard_link(path("a/x"), path("x2")).unwrap();
        std::os::unix::fs::symlink("/", path("link")).unwrap();
        let all = walk(folder.path(), None, &Ear::none()).unwrap();
        assert_eq!(all, Count { files: 5, bytes: 14 });
        let rest = walk(folder.path(), Some(".hostler"), &Ear::none()).unwrap();
        assert_eq!(rest.to_string(), "4 files, 11 bytes");
    }
}
