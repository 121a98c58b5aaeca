//! What running operations have to say, until the coordinator takes it.
//!
//! Saying never blocks and never fails: while no session is up the oldest lines of an operation are dropped.
//! How an operation ends does not pass through here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use hostler_common::id::OperationId;
use tokio::sync::Notify;

/// Lines kept for one operation. A plan has about ten steps, each of which says a line or a few; with retries
/// and undo that stays under a hundred.
pub const LINES_BOUND: usize = 256;

#[derive(Debug, Default)]
struct Inner {
    lines: Mutex<HashMap<OperationId, VecDeque<String>>>,
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

    /// Forgets the lines of `operation`.
    pub fn forget(&self, operation: OperationId) {
        self.with(|all| all.remove(&operation));
    }

    /// Returns when something was said since the last return. Cancel-safe; for one listener.
    pub async fn said(&self) {
        self.0.said.notified().await;
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<OperationId, VecDeque<String>>) -> T) -> T {
        act(&mut self.0.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
