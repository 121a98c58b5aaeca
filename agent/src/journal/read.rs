//! Reads a journal back, and cuts off what a crash left half written.
//!
//! Only the last line may be torn: every earlier one was on disk before the next was begun. A torn line is
//! never lost, it is kept beside the journal in `<journal>.torn`. What a crash did not come to write is missing or
//! zero; a last line that is wrong in any other way was durable once, and is damage: without it the run would go on
//! from a moment that is over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::record::{self, Entry, LineFault, Record};

/// Why a journal cannot be gone by.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be read or repaired.
    #[error("cannot read the journal {}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record that was durable once is not readable now.
    #[error("record {number} of the journal {} is damaged", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Which line, from 1.
        number: usize,
        /// What is before it.
        readable: Vec<Record>,
        /// Why.
        #[source]
        source: LineFault,
    },
    /// The first record does not say which operation it is.
    #[error("the journal {} does not begin with its operation", path.display())]
    Headless {
        /// The journal.
        path: PathBuf,
    },
}

/// Reads the journal at `path`, repairing a torn tail. An empty answer: nothing was begun.
///
/// # Errors
/// When it cannot be read, or is damaged anywhere but at its end.
pub fn read(path: &Path) -> Result<Vec<Record>, ReadError> {
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = fs::read(path).map_err(io)?;
    let (records, whole) = parse(path, &bytes)?;
    if whole < bytes.len() {
        cut(path, whole, &bytes[whole..]).map_err(io)?;
        tracing::warn!(
            journal = %path.display(),
            bytes = bytes.len() - whole,
            "the last record of the journal was half written; it is cut off and kept in a .torn file"
        );
    }
    match records.first().map(|record| &record.entry) {
        None | Some(Entry::Begun { .. }) => Ok(records),
        Some(_) => Err(ReadError::Headless {
            path: path.to_owned(),
        }),
    }
}

/// What can be read of the journal at `path`, whatever is wrong with it. Repairs nothing.
pub(super) fn readable(path: &Path) -> Vec<Record> {
    match parse(path, &fs::read(path).unwrap_or_default()) {
        Ok((records, _)) => records,
        Err(ReadError::Damaged { readable, .. }) => readable,
        Err(ReadError::Io { .. } | ReadError::Headless { .. }) => Vec::new(),
    }
}

/// The whole records of `bytes`, and how many bytes they take.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, usize), ReadError> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let end = at + length + 1;
        match record::decode(&bytes[at..end - 1]) {
            Ok(record) => records.push(record),
            Err(LineFault::Checksum) if end == bytes.len() && has_holes(&bytes[at..]) => {
                return Ok((records, at));
            }
            Err(source) => {
                return Err(ReadError::Damaged {
                    path: path.to_owned(),
                    number: records.len() + 1,
                    readable: records,
                    source,
                });
            }
        }
        at = end;
    }
    match bytes[at..].split_last() {
        // A record whose newline is something else now.
        Some((_, line)) if record::decode(line).is_ok() => Err(ReadError::Damaged {
            path: path.to_owned(),
            number: records.len() + 1,
            readable: records,
            source: LineFault::Checksum,
        }),
        _ => Ok((records, at)),
    }
}

fn cut(path: &Path, whole: usize, torn: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".torn");
    // Appended: a journal may be torn more than once in its life.
    let mut kept = OpenOptions::new().create(true).append(true).open(aside)?;
    kept.write_all(torn)?;
    kept.write_all(b"\n")?;
    kept.sync_all()?;
    let journal = OpenOptions::new().write(true).open(path)?;
    journal.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
    journal.sync_all()?;
    sync_parent(path)
}

/// Whether sectors of it never came to the disk. One zero is a flipped bit of a space.
fn has_holes(line: &[u8]) -> bool {
    line.windows(2).any(|pair| pair == [0, 0])
}

/// Makes the names in `path`'s directory durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
