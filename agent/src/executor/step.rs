//! One idempotent action of an operation, with its undo beside it.
//!
//! Steps are synchronous: they run in the one place for blocking work, each under its own deadline.

use std::time::Duration;

use hostler_common::error::{Chain, Retry};
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
}

impl StepError {
    /// From a cause, whose chain becomes the message.
    pub fn new(cause: &(dyn std::error::Error + 'static), retry: Retry) -> Self {
        Self {
            message: Chain(cause).to_string(),
            retry,
        }
    }

    /// From a sentence.
    pub fn message(message: impl Into<String>, retry: Retry) -> Self {
        Self {
            message: message.into(),
            retry,
        }
    }

    /// What the executor may do about it.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

/// Where a running step says how far it is. Lines reach the client's stream.
pub struct Progress(Box<dyn Fn(String) + Send + Sync>);

impl Progress {
    /// Hands every line to `sink`, which must not block.
    pub fn to(sink: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Box::new(sink))
    }

    /// Says one line.
    pub fn say(&self, line: impl Into<String>) {
        (self.0)(line.into());
    }
}
