//! The journal of one operation, open for writing.
//!
//! One owner writes it, the operation's run. After a write that failed nothing more is written: the file may
//! end in half a record, and a record behind it would make the damage look old.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use hostler_common::units::UnixMillis;
use thiserror::Error;

use super::read::sync_parent;
use super::record::{self, Entry, Record};

/// A record that could not be made durable.
#[derive(Debug, Error)]
#[error("cannot write the journal {}", path.display())]
pub struct WriteError {
    /// The journal.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// An operation's journal.
#[derive(Debug)]
pub struct OperationLog {
    file: File,
    path: PathBuf,
    /// Its name is not durable yet.
    new: bool,
    broken: bool,
}

impl OperationLog {
    /// Makes the file, whose name is durable with its first record, or opens it to write on.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(super) fn open(path: &Path) -> Result<Self, WriteError> {
        let open = || {
            let new = !path.try_exists()?;
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            Ok((file, new))
        };
        let (file, new) = open().map_err(|source| WriteError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            new,
            broken: false,
        })
    }

    /// Writes one record and waits until it is on disk.
    ///
    /// # Errors
    /// When it is not known to be there; so for every later record.
    pub fn append(&mut self, entry: Entry) -> Result<(), WriteError> {
        self.write(entry).map_err(|source| {
            self.broken = true;
            WriteError {
                path: self.path.clone(),
                source,
            }
        })
    }

    fn write(&mut self, entry: Entry) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier record could not be written"));
        }
        let at = UnixMillis::now();
        let line = record::encode(&Record { at, entry }).map_err(io::Error::other)?;
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        // After the file: then most file systems have nothing left to do for it.
        if self.new {
            sync_parent(&self.path)?;
            self.new = false;
        }
        Ok(())
    }
}
