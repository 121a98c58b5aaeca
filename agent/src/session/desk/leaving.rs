//! How an operation leaves the desk: its run is over, its end is answered, its journal goes.
//!
//! The invariant: a journal is given up only when the coordinator knows the end, or holds the operation for ended.

use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::agent::v1::FinishAnswer;
use tokio::time::Instant;

use super::{Desk, Do};
use crate::executor::run::RunEnd;
use crate::failpoint::Point;
use crate::journal::state_dir::Aside;
use crate::session::held::{Fate, Held, Work};

impl Desk {
    /// The coordinator answers a Finish: either way it knows. Unasked it says that the operation has ended without us.
    pub fn finish_answered(&mut self, answer: &FinishAnswer) {
        let Ok(operation) = answer.operation_id.parse() else {
            return;
        };
        let Some(held) = self.held.get(&operation) else {
            return;
        };
        match &held.work {
            Work::Over { .. } => {
                Point::Answered.pass();
                if !answer.accepted {
                    tracing::warn!(%operation, reason = answer.reason, "the operation's end did not count");
                }
                self.drop_journal(operation);
            }
            Work::Idle if !held.journaled => {
                self.held.remove(&operation);
            }
            Work::Idle | Work::Going { .. } if !answer.accepted => self.ended_elsewhere(operation),
            // Said twice.
            Work::Idle | Work::Going { .. } | Work::Dropping => {}
        }
    }

    /// A run is over. Its end may be said once the look numbered `after_look` is reported.
    pub fn run_ended(&mut self, operation: OperationId, end: RunEnd, after_look: u64, now: Instant) {
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        match end {
            RunEnd::Ended(ending) => {
                tracing::info!(%operation, outcome = ?ending.outcome, said = ending.message, "operation ended");
                held.work = Work::Over {
                    ending,
                    after_look,
                    finish_at: now,
                };
            }
            RunEnd::Halted => {
                held.work = Work::Idle;
                if held.fate != Fate::Remove {
                    self.drop_journal(operation);
                } else if !held.lost && !self.stop.is_cancelled() {
                    // Lost, and taken again before the step it was in had ended.
                    self.start(operation);
                }
            }
        }
    }

    /// The journal of `operation` is gone.
    pub fn dropped(&mut self, operation: OperationId, now: Instant) {
        let Some(held) = self.held.remove(&operation) else {
            return;
        };
        if held.waiting {
            let fresh = Held {
                resource: held.resource,
                offer: held.offer,
                waiting: true,
                ..Held::idle(now)
            };
            self.held.insert(operation, fresh);
        }
    }

    pub(super) fn ended_elsewhere(&mut self, operation: OperationId) {
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        match &held.work {
            Work::Over { .. } => {}
            Work::Idle | Work::Dropping => {
                tracing::warn!(%operation, "the coordinator holds a begun operation for ended: its journal is set aside");
                held.fate = Fate::SetAside(Aside::Abandoned);
            }
            Work::Going { halt, .. } => {
                tracing::error!(%operation, "the coordinator holds a running operation for ended: it stops at the next step");
                held.fate = Fate::SetAside(Aside::Abandoned);
                halt.cancel();
                return;
            }
        }
        self.drop_journal(operation);
    }

    pub(super) fn drop_journal(&mut self, operation: OperationId) {
        self.outbox.forget(operation);
        if let Some(held) = self.held.get_mut(&operation)
            && !matches!(held.work, Work::Dropping)
        {
            held.work = Work::Dropping;
            let fate = held.fate;
            self.todo.push(Do::Drop { operation, fate });
        }
    }
}
