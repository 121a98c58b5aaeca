//! The handle that everybody uses, and what an engine serves: a queue of transactions and a queue of questions.
//!
//! An engine is whoever serves [`Queues`] and publishes to the hub; the handle knows nothing of it. Invariant: every
//! request is answered once, or the store is closed.

use std::path::Path;
use std::time::Duration;

use hostler_common::error::Chain;
use tokio::sync::{mpsc, oneshot};

use super::watch::{Hub, Watch};
use super::{Accepting, Committed, Entry, Range, Revision, StoreError, Transaction, sqlite};

/// Every caller waits for its answer, so the bound is on callers at once; more wait in `send`.
const QUEUE_BOUND: usize = 1024;

/// Who asks whether the store is well waits no longer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A transaction, and where its outcome goes.
pub(super) struct WriteRequest {
    pub(super) transaction: Transaction,
    pub(super) answer: oneshot::Sender<Result<Committed, StoreError>>,
}

/// A question, and where its answer goes.
pub(super) enum ReadRequest {
    Get {
        keys: Vec<String>,
        answer: oneshot::Sender<Result<Vec<Option<Entry>>, StoreError>>,
    },
    List {
        range: Range,
        answer: oneshot::Sender<Result<(Vec<Entry>, Revision), StoreError>>,
    },
}

/// What an engine serves until every handle is dropped.
pub(super) struct Queues {
    pub(super) writes: mpsc::Receiver<WriteRequest>,
    pub(super) reads: mpsc::Receiver<ReadRequest>,
    pub(super) hub: Hub,
}

/// A handle to the store. The store closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    writes: mpsc::Sender<WriteRequest>,
    reads: mpsc::Sender<ReadRequest>,
    hub: Hub,
}

impl Store {
    /// Opens, checks and if need be migrates the embedded store in `directory`, making it when it is not there.
    /// Blocks; called once, before anything is served.
    ///
    /// # Errors
    /// When the directory or the file cannot be used. Nothing has changed then.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        sqlite::open(directory)
    }

    /// Opens what is in `directory`, whatever was there before; none is an empty store. It is taken for the newest once
    /// [`Accepting::finish`] has said so. Blocks; nobody else may have it open.
    ///
    /// # Errors
    /// When it is damaged, in use, or cannot be written.
    pub fn accept_loss(directory: &Path) -> Result<(Self, Accepting), StoreError> {
        sqlite::accept_loss(directory)
    }

    /// Saves what the store in `directory` holds at one instant as `copy`, also while somebody serves it. Blocks.
    ///
    /// # Errors
    /// When it cannot be read or is damaged, or `copy` is there already or cannot be written. Then there is no copy.
    pub fn back_up(directory: &Path, copy: &Path) -> Result<Revision, StoreError> {
        sqlite::back_up(directory, copy)
    }

    /// A handle, and the queues that an engine is to serve.
    pub(super) fn over_queues() -> (Self, Queues) {
        let hub = Hub::new();
        let (writes, write_requests) = mpsc::channel(QUEUE_BOUND);
        let (reads, read_requests) = mpsc::channel(QUEUE_BOUND);
        let queues = Queues {
            writes: write_requests,
            reads: read_requests,
            hub: hub.clone(),
        };
        (Self { writes, reads, hub }, queues)
    }

    /// Commits `transaction`, durably, or tells why not.
    ///
    /// # Errors
    /// When the disk does not take it; then nothing happened.
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.writes
            .send(WriteRequest { transaction, answer })
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Why nothing can be stored now, for people. A healthy store writes nothing for it.
    pub async fn trouble(&self) -> Option<String> {
        let asked = self.commit(Transaction::default());
        match tokio::time::timeout(ANSWERS_WITHIN, asked).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("nothing can be stored: {}", Chain(&error))),
            Err(_) => Some(format!(
                "nothing was stored for {} s: the disk of data_dir does not answer",
                ANSWERS_WITHIN.as_secs()
            )),
        }
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
            .send(ReadRequest::Get { keys, answer })
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
            .send(ReadRequest::List { range, answer })
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

    /// Waits until the engine has died, which it does only by a bug: then nothing can be stored.
    pub async fn died(&self) {
        self.writes.closed().await;
    }
}
