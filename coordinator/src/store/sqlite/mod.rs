//! The embedded engine: one SQLite file in WAL mode with `synchronous=FULL`. One thread writes and commits
//! many waiting transactions at once; one thread reads. Neither runs on the runtime.

mod reader;
mod schema;
mod writer;

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::watch::{Hub, Watch};
use super::{Committed, Entry, Range, Revision, StoreError, Transaction};

/// Every caller waits for its answer, so the bound is on callers at once; more wait in `send`.
const QUEUE_BOUND: usize = 1024;

/// A handle to the store. The store closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    writes: mpsc::Sender<writer::Request>,
    reads: mpsc::Sender<reader::Request>,
    hub: Hub,
    path: Arc<PathBuf>,
}

impl Store {
    /// Opens, checks and if need be migrates `<directory>/hostler.db`, making the directory when it is not
    /// there. Blocks; called once, before anything is served.
    ///
    /// # Errors
    /// When the directory or the file cannot be used. Nothing has changed then.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
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
        let hub = Hub::new();
        let (writes, write_requests) = mpsc::channel(QUEUE_BOUND);
        let (reads, read_requests) = mpsc::channel(QUEUE_BOUND);
        let writer = writer::Writer::new(connection, path.clone(), hub.clone())?;
        spawn("store-writer", at, move || {
            writer.run(write_requests);
            drop(lock);
        })?;
        let read_path = path.clone();
        spawn("store-reader", at, move || {
            reader::run(&reading, &read_path, read_requests)
        })?;
        Ok(Self {
            writes,
            reads,
            hub,
            path,
        })
    }

    /// The store's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Commits `transaction`, durably, or tells why not.
    ///
    /// # Errors
    /// When the disk does not take it; then nothing happened.
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.writes
            .send(writer::Request { transaction, answer })
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// One key, as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.get_many(vec![key.to_owned()]).await?.remove(0))
    }

    /// Several keys at one instant, in the order of `keys`.
    ///
    /// # Errors
    /// When one cannot be read.
    pub async fn get_many(&self, keys: Vec<String>) -> Result<Vec<Option<Entry>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.reads
            .send(reader::Request::Get { keys, answer })
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// The keys of a range, and the revision of the listing.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn list(&self, range: Range) -> Result<(Vec<Entry>, Revision), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.reads
            .send(reader::Request::List { range, answer })
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Every transaction from now on. Who wants the keys too lists them after this call, and skips events that
    /// are not newer than what was listed.
    pub fn watch(&self) -> Watch {
        Watch {
            events: self.hub.subscribe(),
        }
    }

    /// Waits until the writer's thread has died, which it does only by a bug: then nothing can be stored.
    pub async fn died(&self) {
        self.writes.closed().await;
    }
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
