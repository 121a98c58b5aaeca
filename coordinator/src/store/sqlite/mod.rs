//! The embedded engine: one SQLite file in WAL mode with `synchronous=FULL`. One thread writes and commits
//! many waiting transactions at once; one thread reads. Neither runs on the runtime.

mod reader;
mod schema;
mod writer;

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use super::handle::{Queues, Store};

/// Opens, checks and if need be migrates `<directory>/hostler.db`, making the directory when it is not there.
///
/// # Errors
/// When the directory or the file cannot be used. Nothing has changed then.
pub(super) fn open(directory: &Path) -> Result<Store, StoreError> {
    let at = |source| StoreError::Directory {
        path: directory.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(at)?;
    let path = Arc::new(directory.join("hostler.db"));
    let lock = File::create(directory.join("lock")).map_err(at)?;
    lock.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => StoreError::InUse {
            path: path.to_path_buf(),
        },
        std::fs::TryLockError::Error(source) => at(source),
    })?;
    let connection = schema::open(&path)?;
    let reading = schema::open_reader(&path)?;
    let (store, queues) = Store::over_queues();
    let Queues { writes, reads, hub } = queues;
    let writer = writer::Writer::new(connection, path.clone(), hub)?;
    spawn("store-writer", at, move || {
        writer.run(writes);
        drop(lock);
    })?;
    let read_path = path.clone();
    spawn("store-reader", at, move || {
        reader::run(&reading, &read_path, reads)
    })?;
    Ok(store)
}

fn spawn(
    name: &str,
    failed: impl Fn(std::io::Error) -> StoreError,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), StoreError> {
    // Detached: it ends with its last handle, and everything that it answered is on the disk.
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(failed)
}

/// SQLite's words for an error, once.
fn failure(path: &Path, action: &'static str, error: &rusqlite::Error) -> StoreError {
    let way_out = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => ": free some space on its disk",
        Some(rusqlite::ErrorCode::ReadOnly) => ": make its directory writable",
        _ => "",
    };
    StoreError::Sqlite {
        path: path.to_owned(),
        action,
        problem: format!("{error}{way_out}"),
    }
}
