//! One idempotent action of an operation, with its undo beside it.
//!
//! Steps are synchronous: they run in the one place for blocking work, each under its own deadline.

use std::time::Duration;

use hostler_common::error::{Chain, Retry};
use hostler_common::rpc::hostler::agent::v1::Measure;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What was true of a step's object before the operation touched it. It is journaled before the step
/// runs, so that an undo after a crash restores this, and not what the operation itself did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// The step only looks; there is nothing to restore.
    Nothing,
    /// The object did not exist.
    Absent,
    /// It existed and was not running, active or present in service.
    Inactive,
    /// It existed and was running or active.
    Active,
}

/// One action of an operation.
pub trait Step: Send + Sync {
    /// What it does, for a person, as "define domain demo-guest-1". Constant for one operation: the journal
    /// finds the step by it.
    fn name(&self) -> String;

    /// The longest that one apply or undo may take. What takes longer has an unknown outcome.
    fn deadline(&self) -> Duration;

    /// Reads what is true of the object now. Called once, before the first apply.
    ///
    /// # Errors
    /// When it cannot be told. The step then fails without having run.
    fn look(&self) -> Result<Before, StepError>;

    /// Makes it so. Called again after a crash or an unclear error, so it must accept that it has been done.
    ///
    /// # Errors
    /// When it is not done, or not known to be.
    fn apply(&self, before: Before, progress: &Progress) -> Result<(), StepError>;

    /// Restores `before`. Called for the failed step too, and again after a crash.
    ///
    /// # Errors
    /// When `before` could not be restored: then a person must look.
    fn undo(&self, before: Before, progress: &Progress) -> Result<(), StepError>;
}

/// Why a step did not succeed: one line with the whole chain of causes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct StepError {
    message: String,
    retry: Retry,
    cancelled: bool,
}

impl StepError {
    /// From a cause, whose chain becomes the message.
    pub fn new(cause: &(dyn std::error::Error + 'static), retry: Retry) -> Self {
        Self {
            message: Chain(cause).to_string(),
            retry,
            cancelled: false,
        }
    }

    /// From a sentence.
    pub fn message(message: impl Into<String>, retry: Retry) -> Self {
        Self {
            message: message.into(),
            retry,
            cancelled: false,
        }
    }

    /// Somebody cancelled the operation while the step ran, and the step stopped.
    pub fn cancelled(by: &str) -> Self {
        Self {
            message: format!("cancelled by {by}"),
            retry: Retry::Never,
            cancelled: true,
        }
    }

    /// Whether it stopped because somebody cancelled the operation.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// What the executor may do about it.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

/// Where a running step says how far it is, and hears that it is to stop.
pub struct Progress(Box<dyn Listener>);

/// Who hears what a running step says. None of it may block.
pub trait Listener: Send + Sync {
    /// A line for the operation's log and its client.
    fn line(&self, line: String);
    /// How far the step is. Often, and never kept.
    fn measure(&self, measure: Measure);
    /// What the operation came to, for its last message. The last one said counts.
    fn conclusion(&self, words: String);
    /// Who cancelled the operation, when somebody did.
    fn cancelled(&self) -> Option<String>;
}

impl Progress {
    /// Hands everything to `listener`.
    pub fn to(listener: impl Listener + 'static) -> Self {
        Self(Box::new(listener))
    }

    /// Says one line.
    pub fn say(&self, line: impl Into<String>) {
        self.0.line(line.into());
    }

    /// Says how far it is. Once a second is often enough.
    pub fn measure(&self, measure: Measure) {
        self.0.measure(measure);
    }

    /// Says what the whole operation came to, as "default grew by 1.00 GiB to 4.00 GiB". It becomes the last
    /// message of a complete run. It is journaled with the end of this step.
    pub fn conclude(&self, words: impl Into<String>) {
        self.0.conclusion(words.into());
    }

    /// Fails when somebody cancelled the operation. A long step asks every second or so, stops what it started,
    /// and returns this error.
    ///
    /// # Errors
    /// [`StepError`] that says who.
    pub fn check_cancelled(&self) -> Result<(), StepError> {
        match self.0.cancelled() {
            None => Ok(()),
            Some(by) => Err(StepError::cancelled(&by)),
        }
    }
}
