//! The agent's directory: `journal/<operation>.log`, `fences.json`, and the lock that keeps it to one agent.
//!
//! Two agents on one directory would run one operation twice, so the lock is held from the start to the end of
//! the process, and the kernel gives it back whatever the end is.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hostler_common::id::OperationId;
use thiserror::Error;

use super::fences::{Fences, FencesError};
use super::lock::Lock;
use super::log::{OperationLog, WriteError};
use super::read::{self, ReadError, sync_parent};
use super::record::{Entry, Record};
use crate::failpoint::Point;

/// Journals that are kept for a person, the newest. More would only fill the disk.
const ASIDE_AT_MOST: usize = 20;

/// Why the directory cannot be used.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// It cannot be made, listed or opened.
    #[error("cannot use the state directory {}", path.display())]
    Io {
        /// The directory, or what in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has it.
    #[error(
        "another agent uses the state directory {}; stop it, or give this one a state_dir of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The fences cannot be gone by.
    #[error("the state directory {} cannot be gone by", path.display())]
    Fences {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: FencesError,
    },
}

/// A journal that an earlier process left.
#[derive(Debug)]
pub struct Found {
    /// Whose.
    pub operation: OperationId,
    /// What it says. Never empty when it could be read.
    pub content: Result<Vec<Record>, ReadError>,
}

/// Why a journal is put aside instead of removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// The coordinator holds the operation for ended, this host does not.
    Abandoned,
    /// It cannot be read.
    Damaged,
}

/// The agent's directory, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    journals: PathBuf,
    fences: Fences,
    _lock: Lock,
}

impl StateDir {
    /// Makes the directory (mode 0700) where there is none, and locks it.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let io = |at: &Path| {
            let path = at.to_owned();
            move |source| StateDirError::Io { path, source }
        };
        let journals = path.join("journal");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&journals)
            .map_err(io(&journals))?;
        sync_parent(&journals).map_err(io(path))?;
        // A process that died between a journal's first record and its name left a name that a loss of power takes away.
        File::open(&journals)
            .and_then(|directory| directory.sync_all())
            .map_err(io(&journals))?;
        let lock = Lock::take(path)?;
        let fences = Fences::open(path.join("fences.json")).map_err(|source| StateDirError::Fences {
            path: path.to_owned(),
            source,
        })?;
        let state_dir = Self {
            journals,
            fences,
            _lock: lock,
        };
        state_dir.see_fences().map_err(io(&state_dir.journals))?;
        Ok(state_dir)
    }

    /// The fences of journals are nowhere else.
    fn see_fences(&self) -> io::Result<()> {
        for operation in self.operations()? {
            let mut of = None;
            for record in read::readable(&self.path(operation)) {
                match record.entry {
                    Entry::Begun { resource, fence, .. } => {
                        self.fences.see(&resource, fence);
                        of = Some(resource);
                    }
                    Entry::Took { fence, .. } => {
                        of.iter().for_each(|resource| self.fences.see(resource, fence));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Those that have a journal.
    fn operations(&self) -> io::Result<Vec<OperationId>> {
        let mut operations = Vec::new();
        for entry in fs::read_dir(&self.journals)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".log"));
            operations.extend(id.and_then(|id| id.parse::<OperationId>().ok()));
        }
        Ok(operations)
    }

    /// The newest fence of each resource.
    pub fn fences(&self) -> &Fences {
        &self.fences
    }

    /// Every journal, oldest first. A journal in which nothing was begun is removed, and so are the oldest of those
    /// that are kept aside.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn found(&self) -> Result<Vec<Found>, StateDirError> {
        let io = |source| StateDirError::Io {
            path: self.journals.clone(),
            source,
        };
        Point::StartBefore.pass();
        let mut found = Vec::new();
        for operation in self.operations().map_err(io)? {
            let content = read::read(&self.path(operation));
            if content.as_ref().is_ok_and(Vec::is_empty) {
                self.remove(operation).map_err(io)?;
                continue;
            }
            found.push(Found { operation, content });
        }
        found.sort_by_key(|found| found.operation);
        self.prune();
        Point::StartAfter.pass();
        Ok(found)
    }

    /// What the journal of `operation` says; nothing when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be gone by.
    pub fn records(&self, operation: OperationId) -> Result<Vec<Record>, ReadError> {
        match read::read(&self.path(operation)) {
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Opens the journal of `operation` to write on, making it where there is none.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn log(&self, operation: OperationId) -> Result<OperationLog, WriteError> {
        OperationLog::open(&self.path(operation))
    }

    /// Removes the journal of `operation`, if there is one. The fences do not go with it.
    ///
    /// # Errors
    /// When it is there and cannot be removed, or the fences cannot be stored.
    pub fn remove(&self, operation: OperationId) -> io::Result<()> {
        let path = self.path(operation);
        self.fences.store().map_err(io::Error::other)?;
        Point::RemoveBefore.pass();
        absent_is_fine(fs::remove_file(&path))?;
        Point::RemoveAfter.pass();
        sync_parent(&path)
    }

    /// Keeps the journal of `operation` for a person, under a name that is not read again. The fences do not go with it.
    ///
    /// # Errors
    /// When it is there and cannot be renamed, or the fences cannot be stored.
    pub fn set_aside(&self, operation: OperationId, why: Aside) -> io::Result<()> {
        let path = self.path(operation);
        self.fences.store().map_err(io::Error::other)?;
        let suffix = match why {
            Aside::Abandoned => "log.abandoned",
            Aside::Damaged => "log.damaged",
        };
        Point::AsideBefore.pass();
        absent_is_fine(fs::rename(&path, path.with_extension(suffix)))?;
        Point::AsideAfter.pass();
        sync_parent(&path)?;
        self.prune();
        Ok(())
    }

    /// Removes what is kept aside beyond the newest [`ASIDE_AT_MOST`]. What cannot be removed is told and stays.
    fn prune(&self) {
        let aside = |name: &OsStr| {
            let name = name.to_str().unwrap_or_default();
            [".log.abandoned", ".log.damaged", ".log.torn"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .is_some_and(|id| id.parse::<OperationId>().is_ok())
        };
        let pruned = fs::read_dir(&self.journals).and_then(|entries| {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
            names.retain(|name| aside(name));
            // An operation's id begins with the time when it was made.
            names.sort();
            let surplus = names.len().saturating_sub(ASIDE_AT_MOST);
            let removed = |name: &OsString| absent_is_fine(fs::remove_file(self.journals.join(name)));
            names[..surplus].iter().try_for_each(removed)
        });
        if let Err(error) = pruned {
            tracing::warn!(journals = %self.journals.display(), %error, "journals that were set aside cannot be removed");
        }
    }

    fn path(&self, operation: OperationId) -> PathBuf {
        self.journals.join(format!("{operation}.log"))
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
