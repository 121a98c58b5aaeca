//! Whether this coordinator serves: real questions to the parts that every call needs. It never repairs anything.
//!
//! A part that does not answer in time is taken for stuck, and the service manager's watchdog then ends the process:
//! whoever adds a question must be sure that a busy coordinator answers it. A disk that takes no writes is no reason,
//! since reads go on and a new process would find the same disk; so nothing here commits.

use std::time::Duration;

use thiserror::Error;

use crate::api::listener::Accepting;
use crate::registry::Registry;
use crate::store::Store;

/// How long one part may take. Longer than a handshake, whose places the loop that accepts may have to wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key that is never written: that it is not there is an answer.
const NO_KEY: &str = "/vital";

/// What is asked.
#[derive(Debug, Clone)]
pub struct Vital {
    /// The loop that accepts connections.
    pub accepting: Accepting,
    /// The fleet in memory.
    pub registry: Registry,
    /// The store.
    pub store: Store,
}

/// The part that does not answer.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// No connection is accepted any more.
    #[error("the loop that accepts connections does not answer")]
    Accepting,
    /// Nothing stored can be read any more.
    #[error("the store does not answer")]
    Store,
}

impl Vital {
    /// Asks every part once. A fleet in memory that is locked for good answers nothing, and so this does not return.
    ///
    /// # Errors
    /// With the first part that does not answer.
    pub async fn signs(&self) -> Result<(), Silent> {
        tokio::time::timeout(PATIENCE, self.accepting.turned())
            .await
            .map_err(|_| Silent::Accepting)?;
        drop(self.registry.turns());
        // That it cannot read is an answer too, and told where somebody wanted to know.
        let read = tokio::time::timeout(PATIENCE, self.store.get(NO_KEY)).await;
        read.map(drop).map_err(|_| Silent::Store)
    }
}
