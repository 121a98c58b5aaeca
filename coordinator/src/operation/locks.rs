//! Who may touch a resource: its fence, and the queue of operations on it. Stored under `/locks/<resource>`.
//!
//! Invariant: only the first of the queue runs. Queue, lock and operation change in one commit.

use hostler_common::id::{Fence, OperationId, ResourceName};
use serde::{Deserialize, Serialize};

/// Where locks lie in the store.
pub const PREFIX: &str = "/locks/";

/// Operations that may wait on one resource. Nobody queues more for a good reason.
pub const QUEUE_AT_MOST: usize = 16;

/// One resource's lock.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Raised by each new holder.
    pub fence: Fence,
    /// Operations that have not ended; the first one's turn it is.
    pub queue: Vec<OperationId>,
    /// An ended operation that left the resource unknown. Nothing runs until it is resolved.
    #[serde(default)]
    pub attention: Option<OperationId>,
}

impl Lock {
    /// Where it lies in the store.
    pub fn key(resource: &ResourceName) -> String {
        format!("{PREFIX}{resource}")
    }

    /// Whose turn it is.
    pub fn turn(&self) -> Option<OperationId> {
        match self.attention {
            Some(_) => None,
            None => self.queue.first().copied(),
        }
    }

    /// Nothing runs, waits or is unclear.
    pub fn is_free(&self) -> bool {
        self.queue.is_empty() && self.attention.is_none()
    }

    /// `id` is no longer in the queue.
    pub fn leave(&mut self, id: OperationId) {
        self.queue.retain(|queued| *queued != id);
    }
}
