//! What is said of an operation: a proposal for it, its lines, its renewals, its end. What an answer means is the
//! desk's. The invariant: a proposal is remembered until it is answered, with the line that it carried.

use std::time::Duration;

use hostler_common::id::{Fence, OperationId, ResourceName};
use tokio::time::Instant;

use super::{Asked, Desk, Do, RUNNING_BOUND};
use crate::executor::run::Lease;
use crate::failpoint::Point;
use crate::session::held::{Held, Work};
use crate::session::messages::{self, Proposal};

/// How long a Finish may stay unanswered before it is said again.
const FINISH_INTERVAL: Duration = Duration::from_secs(5);
/// Between two measures of one operation: as often as a person reads them.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

impl Desk {
    /// Proposes for offers while there is room for more runs.
    pub(super) fn take_waiting(&mut self, now: Instant) {
        let busy = |held: &&Held| held.is_going() || (held.asked && matches!(held.work, Work::Idle));
        let mut running = self.held.values().filter(busy).count();
        let ids: Vec<_> = self.held.keys().copied().collect();
        for operation in ids {
            let waits = |held: &&Held| held.waiting && !matches!(held.work, Work::Dropping);
            let Some(held) = self.held.get(&operation).filter(waits) else {
                continue;
            };
            let barred = self.is_changed_by_another(operation, held.resource.as_ref());
            let Some(held) = self.held.get_mut(&operation) else {
                continue;
            };
            let line = match &held.work {
                Work::Idle if running >= RUNNING_BOUND || barred => continue,
                Work::Idle => {
                    running += 1;
                    match held.journaled {
                        false => format!("taken by {}", self.host),
                        true => format!("taken up again by {}", self.host),
                    }
                }
                _ => format!("still with {}", self.host),
            };
            held.waiting = false;
            held.asked = true;
            self.propose(operation, true, Some(line), now);
        }
    }

    /// Whether a run of another operation on `resource` has not ended. The coordinator may hold that for ended, and yet
    /// the step that it was in goes on.
    fn is_changed_by_another(&self, operation: OperationId, resource: Option<&ResourceName>) -> bool {
        let mut others = self.held.iter().filter(|(id, _)| **id != operation);
        others.any(|(_, held)| held.is_going() && held.resource.as_ref() == resource)
    }

    pub(super) fn say_lines(&mut self, operation: OperationId, now: Instant, room: &mut usize) {
        while *room > 0 && self.held.get(&operation).is_some_and(|held| !held.lost) {
            let Some(line) = self.outbox.take(operation) else {
                return;
            };
            *room -= 1;
            self.propose(operation, false, Some(line), now);
        }
    }

    /// Says how far the running operations are, at most `room` of them. Who finds no room comes later, with what is
    /// the newest then.
    pub(super) fn say_measures(&mut self, now: Instant, mut room: usize) {
        for (operation, held) in &mut self.held {
            let Some(lease) = held.lease.as_ref().filter(|_| held.is_going() && !held.lost) else {
                continue;
            };
            if held.measure_at > now || !self.outbox.has_measure(*operation) {
                continue;
            }
            held.measure_at = now + MEASURE_INTERVAL;
            if room > 0
                && let Some(measure) = self.outbox.take_measure(*operation)
            {
                room -= 1;
                let message = messages::measured(*operation, lease, measure);
                self.todo.push(Do::Send(Box::new(message)));
            }
        }
    }

    pub(super) fn renew(&mut self, operation: OperationId, now: Instant) {
        let due = |held: &Held| self.keeps(operation, held) && held.renew_at <= now;
        if self.held.get(&operation).is_some_and(due) {
            self.propose(operation, false, None, now);
        }
    }

    /// Whether its lease is renewed: while it runs, and until its end may be said. On a host that hangs the look before
    /// that takes longer than a lease, and who lets it run out too often is given up, whatever the end was.
    pub(super) fn keeps(&self, operation: OperationId, held: &Held) -> bool {
        let unsaid = matches!(held.work, Work::Over { .. }) && !self.may_finish(operation, held);
        // What is proposed for anew is renewed by that.
        let asks = held.asked || held.waiting;
        !held.lost && (held.is_going() || unsaid && !asks)
    }

    /// Whether nothing but the time keeps the end of `operation` back.
    pub(super) fn may_finish(&self, operation: OperationId, held: &Held) -> bool {
        let unsaid = !held.lost && self.outbox.has_lines(operation);
        // A taking proposal brings the fence that counts.
        let asks = held.asked || held.waiting;
        matches!(&held.work, Work::Over { after_look, .. } if !unsaid && !asks && *after_look <= self.looked)
    }

    pub(super) fn finish(&mut self, operation: OperationId, now: Instant) {
        let held = self.held.get(&operation);
        if !held.is_some_and(|held| self.may_finish(operation, held)) {
            return;
        }
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        let Work::Over {
            ending, finish_at, ..
        } = &mut held.work
        else {
            return;
        };
        if *finish_at > now {
            return;
        }
        *finish_at = now + FINISH_INTERVAL;
        let lease = held.lease.clone().unwrap_or_else(|| Lease {
            fence: Fence(0),
            token: self.token.clone(),
        });
        Point::Finish.pass();
        let finish = messages::finish(operation, &lease, ending);
        self.todo.push(Do::Send(Box::new(finish)));
    }

    fn propose(&mut self, operation: OperationId, taking: bool, line: Option<String>, now: Instant) {
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        let Some(resource) = &held.resource else {
            return;
        };
        let cancelling = held.cancelling();
        let held_under = held.lease.as_ref().filter(|_| !taking);
        let fence = held_under.map_or(Fence(0), |lease| lease.fence);
        let request = self.next_request;
        self.next_request += 1;
        held.renew_at = now + Duration::from_secs(self.lease_seconds.into()) / 3;
        let message = messages::propose(
            request,
            Proposal {
                operation,
                resource,
                token: held_under.map_or(&self.token, |lease| &lease.token),
                fence,
                newest_fence: self.state_dir.fences().newest(resource),
                lock_for_seconds: self.lease_seconds,
                line: line.clone().unwrap_or_default(),
                cancelling,
            },
        );
        self.asked.insert(
            request,
            Asked {
                operation,
                taking,
                fence,
                // The line of a taking proposal is made anew with it.
                line: line.filter(|_| !taking),
                at: now,
            },
        );
        self.todo.push(Do::Send(Box::new(message)));
    }
}
