//! The newest revision that was ever answered, in a file beside the store: `hostler.newest`.
//!
//! A store that lost its last commits is whole to SQLite, and an empty one is new. This file tells them apart from what
//! was acknowledged. It is written over in place after each commit and left to the kernel to flush, so it costs no wait:
//! it outlives every death of the process at once, and a loss of power as of the last flush, some seconds before. It
//! never says more than was durable, since the commit comes first.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::store::{Revision, StoreError};

/// Before the number.
const WORDS: &str = "newest revision ";
/// As wide as the largest number, so that a line is written over by a line.
const WIDTH: usize = 20;

/// The open file.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    path: PathBuf,
    /// The last write failed, and that was told.
    failing: bool,
}

/// What it says; none when there is no file.
///
/// # Errors
/// When there is one that cannot be read, or does not say it.
pub(super) fn read(path: &Path) -> Result<Option<Revision>, StoreError> {
    let failed = |source| StoreError::Witness {
        path: path.to_owned(),
        source,
    };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let number = std::str::from_utf8(&text).ok().and_then(parse);
    let damaged = || StoreError::WitnessDamaged {
        path: path.to_owned(),
    };
    number.map(Some).ok_or_else(damaged)
}

/// Takes it away, durably, when there is one.
///
/// # Errors
/// When it cannot be removed.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    let removed = match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    removed
        .and_then(|()| sync_parent(path))
        .map_err(|source| StoreError::Witness {
            path: path.to_owned(),
            source,
        })
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn line(revision: Revision) -> String {
    let number = format!("{:0WIDTH$}", revision.0);
    format!("{WORDS}{number} {:08x}\n", crc32fast::hash(number.as_bytes()))
}

fn parse(text: &str) -> Option<Revision> {
    let number = text.strip_prefix(WORDS)?.get(..WIDTH)?.parse().ok()?;
    (text == line(Revision(number))).then_some(Revision(number))
}

impl Witness {
    /// Goes on from what is there. Writes nothing, so that a store on a full disk can be served.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn reopen(path: &Path) -> Result<Self, StoreError> {
        Self::of(path, || OpenOptions::new().write(true).open(path))
    }

    /// Says `revision` from now on, durably: whatever the file said before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn begin(path: &Path, revision: Revision) -> Result<Self, StoreError> {
        Self::of(path, || {
            let fresh = path.with_extension("newest.new");
            let mut file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(line(revision).as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)?;
            sync_parent(path)?;
            Ok(file)
        })
    }

    fn of(path: &Path, open: impl FnOnce() -> io::Result<File>) -> Result<Self, StoreError> {
        let file = open().map_err(|source| StoreError::Witness {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            failing: false,
        })
    }

    /// `revision` is durable. When that cannot be written here, less is known after a loss, and nothing else is worse.
    pub(super) fn tell(&mut self, revision: Revision) {
        match self.file.write_all_at(line(revision).as_bytes(), 0) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    tracing::warn!(file = %self.path.display(), %error, "the newest revision cannot be written down");
                }
                self.failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_was_told_last_and_nothing_when_damaged() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("hostler.newest");
        assert_eq!(read(&path).unwrap(), None);
        let mut witness = Witness::begin(&path, Revision(7)).unwrap();
        witness.tell(Revision(u64::MAX));
        assert_eq!(read(&path).unwrap(), Some(Revision(u64::MAX)));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(read(&path).is_err(), "flipped at {at}");
        }
    }
}
