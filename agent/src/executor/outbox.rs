//! What running operations have to say, until the coordinator takes it.
//!
//! Saying never blocks and never fails: while no session is up the oldest lines of an operation are dropped, and of
//! its measures there is only ever the newest.
//! How an operation ends does not pass through here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::agent::v1::Measure;
use tokio::sync::Notify;

/// Lines kept for one operation. A plan has about ten steps, each of which says a line or a few; with retries
/// and undo that stays under a hundred.
pub const LINES_BOUND: usize = 256;

#[derive(Debug, Default)]
struct Inner {
    lines: Mutex<HashMap<OperationId, VecDeque<String>>>,
    measures: Mutex<HashMap<OperationId, Measure>>,
    said: Notify,
}

/// Where operations say how far they are. Clones share it.
#[derive(Debug, Default, Clone)]
pub struct Outbox(Arc<Inner>);

impl Outbox {
    /// Adds a line of `operation`.
    pub fn say(&self, operation: OperationId, line: String) {
        tracing::info!(%operation, "{line}");
        self.with(|all| {
            let lines = all.entry(operation).or_default();
            if lines.len() == LINES_BOUND {
                lines.pop_front();
            }
            lines.push_back(line);
        });
        self.0.said.notify_one();
    }

    /// Takes the oldest line of `operation`.
    pub fn take(&self, operation: OperationId) -> Option<String> {
        self.with(|all| all.get_mut(&operation)?.pop_front())
    }

    /// Puts back a line that did not arrive, unless newer ones took its place.
    pub fn put_back(&self, operation: OperationId, line: String) {
        self.with(|all| {
            let lines = all.entry(operation).or_default();
            if lines.len() < LINES_BOUND {
                lines.push_front(line);
            }
        });
    }

    /// Whether `operation` has a line to take.
    pub fn has_lines(&self, operation: OperationId) -> bool {
        self.with(|all| all.get(&operation).is_some_and(|lines| !lines.is_empty()))
    }

    /// Says how far `operation` is, in place of what was said before.
    pub fn measure(&self, operation: OperationId, measure: Measure) {
        let replaced = self.measures().insert(operation, measure);
        // Whoever listens knows of the one before, and is to be woken no more often than it takes them.
        if replaced.is_none() {
            self.0.said.notify_one();
        }
    }

    /// Takes the newest measure of `operation`.
    pub fn take_measure(&self, operation: OperationId) -> Option<Measure> {
        self.measures().remove(&operation)
    }

    /// Whether `operation` has a measure to take.
    pub fn has_measure(&self, operation: OperationId) -> bool {
        self.measures().contains_key(&operation)
    }

    /// Forgets the lines and the measure of `operation`.
    pub fn forget(&self, operation: OperationId) {
        self.with(|all| all.remove(&operation));
        self.take_measure(operation);
    }

    /// Returns when something was said since the last return. Cancel-safe; for one listener.
    pub async fn said(&self) {
        self.0.said.notified().await;
    }

    fn measures(&self) -> MutexGuard<'_, HashMap<OperationId, Measure>> {
        self.0.measures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<OperationId, VecDeque<String>>) -> T) -> T {
        act(&mut self.0.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
