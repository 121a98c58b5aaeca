//! The newest fence seen for each resource: what carries an older one is refused.
//!
//! The fence of an operation is durable in its journal, before anything is done under it. Replacing a file costs several
//! times a record of the journal, so the file is brought up to date only before a journal goes. One entry a resource of
//! this host, so it stays small and is replaced whole. Invariant: what the file does not have yet is in a journal.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hostler_common::id::{Fence, ResourceName};
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

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    fences: BTreeMap<ResourceName, Fence>,
}

/// The newest fence of each resource.
#[derive(Debug)]
pub struct Fences {
    path: PathBuf,
    /// Held only for a look, so that the runtime may ask.
    seen: Mutex<BTreeMap<ResourceName, Fence>>,
    /// What the file holds. Held while the disk works, so that an older map never replaces a newer one.
    stored: Mutex<BTreeMap<ResourceName, Fence>>,
}

impl Fences {
    /// Reads the file at `path`; none is no fence.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn open(path: PathBuf) -> Result<Self, FencesError> {
        let stored: Stored = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| FencesError::Damaged {
                path: path.clone(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::default(),
            Err(source) => return Err(FencesError::Read { path, source }),
        };
        Ok(Self {
            path,
            seen: Mutex::new(stored.fences.clone()),
            stored: Mutex::new(stored.fences),
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
        let fresh = Stored { version: 1, fences };
        Point::FenceBefore.pass();
        replace(&self.path, &fresh).map_err(|source| FencesError::Write {
            path: self.path.clone(),
            source,
        })?;
        Point::FenceAfter.pass();
        *stored = fresh.fences;
        Ok(())
    }
}

fn replace(path: &Path, stored: &Stored) -> io::Result<()> {
    let json = serde_json::to_vec_pretty(stored).map_err(io::Error::other)?;
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
