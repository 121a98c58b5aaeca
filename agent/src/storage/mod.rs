//! The storage pool that this host owns: what it is made of, how it grows, how it gives back.
//!
//! `plan` decides on plain values what to change; `change` carries it out as steps; a [`Backend`] knows one kind of
//! storage. Nothing here remembers a pool: it is read anew each time.

mod block;
pub mod btrfs;
pub mod change;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzed;
#[cfg(feature = "memory-pool")]
pub mod memory;
pub mod owned;
pub mod owner;
pub mod plan;
pub mod pool;
pub mod report;
pub mod setup;
pub mod spare;

use hostler_common::error::Retry;
use thiserror::Error;

use self::pool::{Change, PoolState, Snapshot};
use crate::executor::step::{Progress, StepError};

/// One kind of storage. Calls block. How other kinds map onto it: docs/adr/0012.
pub trait Backend: Send + Sync {
    /// As in the configuration, `btrfs`.
    fn kind(&self) -> &'static str;

    /// Reads the pool as it is now.
    ///
    /// # Errors
    /// When it is not mounted, not writable, or does not answer.
    fn look(&self) -> Result<PoolState, PoolFault>;

    /// Whether `change` is in effect already, read from the pool itself.
    ///
    /// # Errors
    /// When it cannot be told.
    fn is_done(&self, change: &Change) -> Result<bool, PoolFault>;

    /// Makes `change`, or goes on with one that a crash interrupted; checks again just before acting that it is
    /// safe. Long ones say how far they are and stop when the operation is cancelled, leaving the pool whole.
    ///
    /// # Errors
    /// When it is not in effect, or not known to be.
    fn apply(&self, change: &Change, progress: &Progress) -> Result<(), StepError>;

    /// Reverts `change`, whether it is in effect, half in effect or not at all.
    ///
    /// # Errors
    /// When the pool could not be brought back.
    fn revert(&self, change: &Change, progress: &Progress) -> Result<(), StepError>;

    /// Takes a read-only snapshot of the whole pool, at one instant. Accepts the one that is there.
    ///
    /// # Errors
    /// When there is none after it, or it would not hold all of the pool; the sentence names what would be missing.
    fn take_snapshot(&self) -> Result<Snapshot, PoolFault>;

    /// The snapshot that an operation left, if there is one.
    ///
    /// # Errors
    /// When it cannot be told.
    fn found_snapshot(&self) -> Result<Option<Snapshot>, PoolFault>;

    /// Removes the snapshot, if there is one.
    ///
    /// # Errors
    /// When it is still there.
    fn remove_snapshot(&self) -> Result<(), PoolFault>;
}

/// Why a pool cannot be read or changed: one line that names the thing and the way out.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct PoolFault {
    message: String,
    retry: Retry,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl PoolFault {
    /// A sentence.
    pub fn new(message: impl Into<String>, retry: Retry) -> Self {
        Self {
            message: message.into(),
            retry,
            source: None,
        }
    }

    /// A sentence about what was tried, with why it failed.
    pub fn caused(
        message: impl Into<String>,
        retry: Retry,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            message: message.into(),
            retry,
            source: Some(Box::new(source)),
        }
    }

    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

impl From<PoolFault> for StepError {
    fn from(fault: PoolFault) -> Self {
        Self::new(&fault, fault.retry)
    }
}
