//! The engine without a disk, for simulations: the keys are in memory, and outlive the process that is simulated.
//!
//! Whoever opens it conducts it: how long a commit takes, whether it is refused, what is seen of it. Dropping the
//! serving future is the crash of a process: a commit is then done or not done, whole. Invariant: as everywhere, an
//! answer is given only after the transaction is in the keys, and events follow in the order of their revisions.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::handle::{Queues, ReadRequest, Store, WriteRequest};
use super::watch::Hub;
use super::{Committed, Entry, Event, Order, Range, Revision, StoreError, Transaction, Write};

/// Transactions in one commit at most.
const GROUP_AT_MOST: usize = 256;

/// The keys. Clones share them; they outlive the stores that are opened on them.
#[derive(Debug, Default, Clone)]
pub struct Keys(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    revision: Revision,
}

/// What the engine is about to do, or has done.
#[derive(Debug)]
pub enum Act<'a> {
    /// A group of transactions is written after the wait that is answered. An error refuses the group.
    Write,
    /// These are in the keys; their events and answers follow after the wait that is answered.
    Written(&'a [Event]),
    /// Keys are read after the wait that is answered.
    Read,
}

/// Whoever conducts the engine: how long an act takes, or why it fails.
pub type Conductor = Arc<dyn Fn(Act<'_>) -> Result<Duration, String> + Send + Sync>;

/// A store on `keys`, and the future that serves it. Once that is dropped the store is closed.
pub fn open(keys: &Keys, conductor: Conductor) -> (Store, impl Future<Output = ()> + Send + use<>) {
    let (store, queues) = Store::over_queues();
    let Queues { writes, reads, hub } = queues;
    let engine = Engine {
        keys: keys.clone(),
        conductor,
        hub,
    };
    let serving = async move {
        tokio::join!(engine.write(writes), engine.read(reads));
    };
    (store, serving)
}

struct Engine {
    keys: Keys,
    conductor: Conductor,
    hub: Hub,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    async fn write(&self, mut requests: mpsc::Receiver<WriteRequest>) {
        let mut group = Vec::with_capacity(GROUP_AT_MOST);
        while requests.recv_many(&mut group, GROUP_AT_MOST).await > 0 {
            let taken = (self.conductor)(Act::Write);
            if let Ok(wait) = &taken {
                sleep(*wait).await;
            }
            if let Err(problem) = taken {
                for request in group.drain(..) {
                    let problem = problem.clone();
                    let action = "commit";
                    let _ = request.answer.send(Err(StoreError::Memory { action, problem }));
                }
                continue;
            }
            let (transactions, answers): (Vec<_>, Vec<_>) = group
                .drain(..)
                .map(|request| (request.transaction, request.answer))
                .unzip();
            let (outcomes, events) = self.keys.commit(transactions);
            if let Ok(wait) = (self.conductor)(Act::Written(&events)) {
                sleep(wait).await;
            }
            for event in events {
                self.hub.publish(event);
            }
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // Who hung up does not change that it is done.
                let _ = answer.send(Ok(outcome));
            }
        }
    }

    async fn read(&self, mut requests: mpsc::Receiver<ReadRequest>) {
        while let Some(request) = requests.recv().await {
            let failed = match (self.conductor)(Act::Read) {
                Ok(wait) => {
                    sleep(wait).await;
                    None
                }
                Err(problem) => Some(StoreError::Memory {
                    action: "be read",
                    problem,
                }),
            };
            match request {
                ReadRequest::Get { keys, answer } => {
                    let _ = answer.send(failed.map_or_else(|| Ok(self.keys.get(&keys)), Err));
                }
                ReadRequest::List { range, answer } => {
                    let _ = answer.send(failed.map_or_else(|| Ok(self.keys.list(&range)), Err));
                }
            }
        }
    }
}

impl Keys {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each key as it is now, in the order of `keys`.
    pub fn get(&self, keys: &[String]) -> Vec<Option<Entry>> {
        let inner = self.lock();
        keys.iter().map(|key| inner.entries.get(key).cloned()).collect()
    }

    /// The keys of a range, and the revision.
    pub fn list(&self, range: &Range) -> (Vec<Entry>, Revision) {
        let inner = self.lock();
        // As in the embedded engine: keys are ASCII, so this is above every key under the prefix.
        let end = format!("{}\u{10ffff}", range.prefix);
        let (low, high) = match (range.order, &range.beyond) {
            (Order::Ascending, Some(beyond)) => (beyond.clone(), end),
            (Order::Descending, Some(beyond)) => (range.prefix.clone(), beyond.clone()),
            (_, None) => (range.prefix.clone(), end),
        };
        if low >= high {
            return (Vec::new(), inner.revision);
        }
        let between = inner
            .entries
            .range::<str, _>((Bound::Excluded(low.as_str()), Bound::Excluded(high.as_str())))
            .map(|(_, entry)| entry);
        let entries = match range.order {
            Order::Ascending => between.take(range.at_most).cloned().collect(),
            Order::Descending => between.rev().take(range.at_most).cloned().collect(),
        };
        (entries, inner.revision)
    }

    fn commit(&self, group: Vec<Transaction>) -> (Vec<Committed>, Vec<Event>) {
        let mut inner = self.lock();
        let mut outcomes = Vec::with_capacity(group.len());
        let mut events = Vec::new();
        for transaction in group {
            let modified = |key: &str| inner.entries.get(key).map_or(Revision(0), |entry| entry.modified);
            let holds = transaction
                .compares
                .iter()
                .all(|compare| modified(&compare.key) == compare.modified);
            if !holds {
                outcomes.push(Committed::Conflict);
                continue;
            }
            let revision = Revision(inner.revision.0 + 1);
            inner.revision = revision;
            for write in &transaction.writes {
                inner.apply(write, revision);
            }
            outcomes.push(Committed::At(revision));
            events.push(Event {
                revision,
                writes: transaction.writes,
            });
        }
        (outcomes, events)
    }
}

impl Inner {
    fn apply(&mut self, write: &Write, modified: Revision) {
        match write {
            Write::Put { key, value } => {
                let (key, value) = (key.clone(), value.clone());
                let entry = Entry {
                    key: key.clone(),
                    value,
                    modified,
                };
                self.entries.insert(key, entry);
            }
            Write::Delete { key } => {
                self.entries.remove(key);
            }
        }
    }
}
