//! Hears a running step, and passes on what it says.
//!
//! The invariant: a call that outlives its run does not speak for the operation any more.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::agent::v1::Measure;

use super::cancel::Cancel;
use super::outbox::Outbox;
use super::step::Listener;

/// What a step says its operation came to. Clones share it.
#[derive(Debug, Default, Clone)]
pub(super) struct Conclusion(Arc<Mutex<Option<String>>>);

impl Conclusion {
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, words: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }
}

/// One call of a step, as the operation hears it.
pub(super) struct Hearing {
    pub(super) outbox: Outbox,
    pub(super) operation: OperationId,
    /// Gone with the run.
    pub(super) alive: Weak<()>,
    pub(super) conclusion: Conclusion,
    pub(super) cancel: Cancel,
}

impl Hearing {
    fn is_over(&self) -> bool {
        self.alive.strong_count() == 0
    }
}

impl Listener for Hearing {
    fn line(&self, line: String) {
        if !self.is_over() {
            self.outbox.say(self.operation, line);
        }
    }

    fn measure(&self, measure: Measure) {
        if !self.is_over() {
            self.outbox.measure(self.operation, measure);
        }
    }

    fn conclusion(&self, words: String) {
        self.conclusion.put(words);
    }

    fn cancelled(&self) -> Option<String> {
        self.cancel.by()
    }
}
