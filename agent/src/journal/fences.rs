//! The newest fence seen for each resource: what carries an older one is refused.
//!
//! The fence of an operation is durable in its journal, before anything is done under it. Replacing a file costs several
//! times a record of the journal, so the file is brought up to date only before a journal goes. One entry a resource of
//! this host, so it stays small and is replaced whole; a sum finds the fence that reads well and is another. Invariant: what
//! the file does not have yet is in a journal.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hostler_common::id::{Fence, ResourceName};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::read::sync_parent;
use crate::failpoint::Point;

/// Why the fences are not known or not durable.
#[derive(Debug, Error)]
pub enum FencesError {
    /// The file cannot be read.
    #[error("cannot read the fences {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what was written. Without it an old command could not be told from a new one.
    #[error(
        "the fences {} are damaged; restore the file, or remove it once no older coordinator can reach this host",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A later version wrote it.
    #[error(
        "the fences {} have format {found}; this version reads formats up to {VERSION}: install the newer version again",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It cannot be replaced.
    #[error("cannot write the fences {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

type Newest = BTreeMap<ResourceName, Fence>;

/// The newest version of the file. The first had no sum.
const VERSION: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    fences: Newest,
    /// The CRC-32 of the fences as compact JSON, in eight hex digits.
    #[serde(default)]
    sum: Option<String>,
}

impl Stored {
    fn of(fences: &Newest) -> serde_json::Result<Self> {
        Ok(Self {
            version: VERSION,
            fences: fences.clone(),
            sum: Some(sum(fences)?),
        })
    }

    fn read(bytes: &[u8]) -> serde_json::Result<Newest> {
        let stored: Self = serde_json::from_slice(bytes)?;
        let wrong = |what| Err(serde_json::Error::custom(what));
        match stored.sum {
            None if stored.version == VERSION => wrong("its sum is missing"),
            Some(said) if said != sum(&stored.fences)? => wrong("its sum is wrong"),
            Some(_) | None => Ok(stored.fences),
        }
    }
}

/// The version of a file that is later than this one's, whatever else is in it.
fn later(bytes: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let versioned: Versioned = serde_json::from_slice(bytes).ok()?;
    Some(versioned.version).filter(|version| *version > VERSION)
}

fn sum(fences: &Newest) -> serde_json::Result<String> {
    Ok(format!("{:08x}", crc32fast::hash(&serde_json::to_vec(fences)?)))
}

/// The newest fence of each resource.
#[derive(Debug)]
pub struct Fences {
    path: PathBuf,
    /// Held only for a look, so that the runtime may ask.
    seen: Mutex<Newest>,
    /// What the file holds. Held while the disk works, so that an older map never replaces a newer one.
    stored: Mutex<Newest>,
}

impl Fences {
    /// Reads the file at `path`; none is no fence.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn open(path: PathBuf) -> Result<Self, FencesError> {
        let stored = match fs::read(&path) {
            Ok(bytes) => match later(&bytes) {
                Some(found) => return Err(FencesError::TooNew { path, found }),
                None => Stored::read(&bytes).map_err(|source| FencesError::Damaged {
                    path: path.clone(),
                    source,
                })?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Newest::new(),
            Err(source) => return Err(FencesError::Read { path, source }),
        };
        Ok(Self {
            path,
            seen: Mutex::new(stored.clone()),
            stored: Mutex::new(stored),
        })
    }

    /// The newest fence seen for `resource`; zero when there was none. Does not block.
    pub fn newest(&self, resource: &ResourceName) -> Fence {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(resource).copied().unwrap_or_default()
    }

    /// Remembers `fence` unless a newer one was seen. It is for the caller to journal it. Does not block.
    pub fn see(&self, resource: &ResourceName, fence: Fence) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = seen.entry(resource.clone()).or_default();
        *newest = fence.max(*newest);
    }

    /// Brings the file up to date with everything that was seen. Durable when it returns.
    ///
    /// # Errors
    /// When the file cannot be replaced. The fences count in this process all the same.
    pub fn store(&self) -> Result<(), FencesError> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let fences = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if fences == *stored {
            return Ok(());
        }
        Point::FenceBefore.pass();
        replace(&self.path, &fences).map_err(|source| FencesError::Write {
            path: self.path.clone(),
            source,
        })?;
        Point::FenceAfter.pass();
        *stored = fences;
        Ok(())
    }
}

fn replace(path: &Path, fences: &Newest) -> io::Result<()> {
    let json = Stored::of(fences)
        .and_then(|stored| serde_json::to_vec_pretty(&stored))
        .map_err(io::Error::other)?;
    let fresh = path.with_extension("json.new");
    // The directory is locked, so nobody else makes a file of this name.
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&fresh)?;
    file.write_all(&json)?;
    file.sync_all()?;
    Point::FenceWritten.pass();
    fs::rename(&fresh, path)?;
    sync_parent(path)
}
