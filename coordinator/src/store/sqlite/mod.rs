//! The embedded engine: one SQLite file in WAL mode with `synchronous=FULL`. One thread writes and commits
//! many waiting transactions at once; one thread reads. Neither runs on the runtime.
//!
//! Invariant: a store that opens is, byte for byte, what some commit left, and no older than the newest commit that
//! its witness knows of. Anything else is refused, and left as it was found.

mod backup;
mod content;
mod place;
mod reader;
mod schema;
mod witness;
mod writer;

use std::fs::{File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::unistd::Uid;
use rusqlite::ffi::SQLITE_IOERR_FSYNC;
use rusqlite::{Connection, ErrorCode};

use self::schema::State;
use self::witness::Witness;
use super::handle::{Queues, Store};
use super::{Revision, StoreError};

/// The store's file in its directory.
const STORE: &str = "hostler.db";
/// What tells its newest revision.
const WITNESS: &str = "hostler.newest";

/// The store's files and who may use them. The lock goes with it.
struct Files {
    lock: File,
    store: PathBuf,
    witness: PathBuf,
}

impl Files {
    /// Makes the directory when it is not there, and locks it.
    fn lock(directory: &Path) -> Result<Self, StoreError> {
        let at = |source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(at)?;
        // In the night whoever repairs it is root. Files of root's would keep the service from its own store.
        let owner = std::fs::metadata(directory).map_err(at)?.uid();
        if Uid::effective().is_root() && owner != 0 {
            return Err(StoreError::NotRoots {
                path: directory.to_owned(),
                owner,
            });
        }
        let store = directory.join(STORE);
        let lock = File::create(directory.join("lock")).map_err(at)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                lock,
                store,
                witness: directory.join(WITNESS),
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: store }),
            Err(TryLockError::Error(source)) => Err(at(source)),
        }
    }

    /// Opens the store, unless it is older than it was or not there any more.
    fn open(&self) -> Result<Opened, StoreError> {
        let newest = witness::read(&self.witness)?;
        let path = || self.store.clone();
        // Looked at before SQLite is: it takes an empty file for a new store, and removes the log beside it.
        if length(&self.store) == 0 {
            if let Some(newest) = newest {
                return Err(StoreError::Gone { path: path(), newest });
            }
            if length(&self.store.with_extension("db-wal")) > 0 {
                let problem = "it is empty, but its log is not".to_owned();
                return Err(StoreError::Damaged {
                    path: path(),
                    problem,
                });
            }
        }
        // Earlier formats had no witness. It is there before the store is in the newest: a process that dies in between,
        // or finds no room, leaves nothing that is taken for a copy.
        let mut begun = None;
        let (connection, state) = schema::open(&self.store, |revision| {
            if newest.is_none() {
                begun = Some(Witness::begin(&self.witness, revision)?);
            }
            Ok(())
        })?;
        let found = state.revision;
        let witness = match (newest, begun) {
            (Some(newest), _) if newest > found => {
                return Err(StoreError::Older {
                    path: path(),
                    found,
                    newest,
                });
            }
            (Some(_), _) => Witness::reopen(&self.witness)?,
            (None, Some(begun)) => begun,
            (None, None) if found > Revision::default() => {
                return Err(StoreError::Unwitnessed { path: path(), found });
            }
            (None, None) => Witness::begin(&self.witness, found)?,
        };
        Ok(Opened {
            connection,
            state,
            witness: Some(witness),
        })
    }
}

/// A store that is as it should be.
struct Opened {
    connection: Connection,
    state: State,
    /// None while a loss is being accepted.
    witness: Option<Witness>,
}

/// A store whose loss is being accepted: until that is said to be over it has no witness, and is refused as a copy.
#[derive(Debug)]
pub struct Accepting {
    /// As it was found.
    pub revision: Revision,
    witness: PathBuf,
}

impl Accepting {
    /// The loss is accepted, durably: from now on the store opens. The store itself must still be open. Blocks.
    ///
    /// # Errors
    /// When that cannot be written down. It is to be accepted again then.
    pub fn finish(self) -> Result<(), StoreError> {
        Witness::begin(&self.witness, self.revision).map(drop)
    }
}

/// Zero when there is none. What cannot be looked at, SQLite will say.
fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

/// Opens, checks and if need be migrates `<directory>/hostler.db`, making the directory when it is not there.
///
/// # Errors
/// When the directory or the file cannot be used. Nothing has changed then.
pub(super) fn open(directory: &Path) -> Result<Store, StoreError> {
    let files = Files::lock(directory)?;
    let opened = files.open()?;
    start(directory, files, opened)
}

/// Opens what is in `directory`, whatever was there before; none is an empty store.
///
/// # Errors
/// When it is damaged, in use, or cannot be written.
pub(super) fn accept_loss(directory: &Path) -> Result<(Store, Accepting), StoreError> {
    let files = Files::lock(directory)?;
    let (connection, state) = schema::open(&files.store, |_| Ok(()))?;
    // Only now: what is damaged is left with all that there is.
    witness::remove(&files.witness)?;
    let accepting = Accepting {
        revision: state.revision,
        witness: files.witness.clone(),
    };
    let opened = Opened {
        connection,
        state,
        witness: None,
    };
    Ok((start(directory, files, opened)?, accepting))
}

fn start(directory: &Path, files: Files, opened: Opened) -> Result<Store, StoreError> {
    let Opened {
        connection,
        state,
        witness,
    } = opened;
    let reading = schema::open_reader(&files.store)?;
    schema::keep_log(&files.store, &connection, false)?;
    let Files {
        lock, store: path, ..
    } = files;
    let path = Arc::new(path);
    let (store, queues) = Store::over_queues();
    let Queues { writes, reads, hub } = queues;
    let mut writer = writer::Writer::new(connection, path.clone(), hub, state, witness);
    let at = |source| StoreError::Directory {
        path: directory.to_owned(),
        source,
    };
    let reader = spawn("store-reader", move || reader::run(reading, &path, reads)).map_err(at)?;
    let writing = spawn("store-writer", move || {
        writer.run(writes);
        // The last to close moves the log into the file, and the reader may not.
        let _ = reader.join();
        drop(writer);
        drop(lock);
    });
    // Detached: it ends with the last handle, and everything that it answered is on the disk.
    writing.map(drop).map_err(at)?;
    Ok(store)
}

/// Saves a copy of the store in `directory`, whoever serves it.
///
/// # Errors
/// When it cannot be read or written; then there is no copy.
pub(super) fn back_up(directory: &Path, copy: &Path) -> Result<Revision, StoreError> {
    backup::back_up(&directory.join(STORE), copy)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// SQLite's words for an error, once.
fn failure(path: &Path, action: &'static str, error: &rusqlite::Error) -> StoreError {
    let way_out = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ": free some space on its disk",
        Some(ErrorCode::ReadOnly) => ": make its directory writable",
        Some(ErrorCode::SystemIoFailure) => ": see what the kernel says of its disk (dmesg)",
        _ => "",
    };
    StoreError::Sqlite {
        path: path.to_owned(),
        action,
        problem: format!("{error}{way_out}"),
    }
}

/// The same when nobody could take back what failed. Only what failed as it was flushed can be whole in the log.
fn uncertain(path: &Path, action: &'static str, error: &rusqlite::Error) -> StoreError {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    match failure(path, action, error) {
        StoreError::Sqlite {
            path,
            action,
            problem,
        } if extended == Some(SQLITE_IOERR_FSYNC) => StoreError::Sqlite {
            path,
            action,
            problem: format!("{problem}. A restart may bring back what failed: look before you repeat it"),
        },
        other => other,
    }
}
