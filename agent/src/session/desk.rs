//! What this process holds, and what follows from each message about it. No I/O: it answers with what to do.
//!
//! ```text
//!  offer ──▶ Idle ── propose, accepted ──▶ Going ── ended ──▶ Over ── answered ──▶ Dropping ──▶ gone
//!             ▲                              │
//!             └── halted: the lease is lost ─┘     (the journal stays, for the next offer)
//! ```
//!
//! The invariants: an operation is started only when it is Idle, under an accepted proposal; a fence older than
//! the newest seen starts nothing; an end is said after every line of the operation, and after a report that was
//! made after the end.

mod leaving;
mod saying;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hostler_common::id::{Fence, HostName, OperationId, ProcessToken, ResourceName};
use hostler_common::operation::Cancelling;
use hostler_common::rpc::hostler::agent::v1::{Cancel, Offer, ProposeAnswer, SessionRequest, Welcome};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held::{Fate, Held, Offered, Work};
use super::messages;
use crate::executor::cancel;
use crate::executor::leave::{self, Leave};
use crate::executor::outbox::Outbox;
use crate::executor::run::{Accepted, Lease};
use crate::journal::state_dir::{Found, StateDir};

/// Operations that run at once. A host has about as many hypervisors as GPUs, a few, and each has one
/// operation at a time; this leaves room for the largest.
pub const RUNNING_BOUND: usize = 32;
/// Offers and journals that are known at once; one offer a resource of the host.
const HELD_BOUND: usize = 1024;

/// What is to be done.
#[derive(Debug)]
pub enum Do {
    /// Send it on the stream, in order.
    Send(Box<SessionRequest>),
    /// Run the operation.
    Start {
        /// Which.
        accepted: Accepted,
        /// Its lease, and each later one.
        lease: watch::Receiver<Lease>,
        /// Who cancels it.
        cancel: cancel::Cancel,
        /// Until when its steps may begin.
        leave: Leave,
        /// Stops it.
        halt: CancellationToken,
    },
    /// Do away with its journal.
    Drop {
        /// Whose.
        operation: OperationId,
        /// How.
        fate: Fate,
    },
}

/// A proposal that has not been answered.
#[derive(Debug)]
struct Asked {
    operation: OperationId,
    /// It takes the operation, and does not only renew.
    taking: bool,
    /// The fence that it was made under.
    fence: Fence,
    line: Option<String>,
    at: Instant,
}

/// The operations of this process.
#[derive(Debug)]
pub struct Desk {
    host: HostName,
    token: ProcessToken,
    state_dir: Arc<StateDir>,
    outbox: Outbox,
    stop: CancellationToken,
    held: BTreeMap<OperationId, Held>,
    asked: BTreeMap<u64, Asked>,
    next_request: u64,
    lease_seconds: u32,
    /// The newest look at the host that this session has reported.
    looked: u64,
    /// Operations of which it is logged that they were offered under an old fence.
    old_fences: BTreeSet<OperationId>,
    todo: Vec<Do>,
}

impl Desk {
    /// With what an earlier process left. Every run stops when `stop` is cancelled.
    pub fn new(
        host: HostName,
        state_dir: Arc<StateDir>,
        outbox: Outbox,
        stop: CancellationToken,
        found: &[Found],
    ) -> Self {
        let now = Instant::now();
        let held = found
            .iter()
            .map(|found| (found.operation, Held::found(found, now)))
            .collect();
        Self {
            host,
            token: ProcessToken::generate(),
            state_dir,
            outbox,
            stop,
            held,
            asked: BTreeMap::new(),
            next_request: 1,
            lease_seconds: 1,
            looked: 0,
            old_fences: BTreeSet::new(),
            todo: Vec::new(),
        }
    }

    /// The first message of a session.
    pub fn hello(&self) -> SessionRequest {
        let journaled = self.held.iter().filter(|(_, held)| held.journaled);
        messages::hello(
            self.host.as_str(),
            &self.token,
            journaled.map(|(id, _)| *id).collect(),
        )
    }

    /// What has become due, in order. At most `room` lines are among it.
    pub fn todo(&mut self, now: Instant, room: usize) -> Vec<Do> {
        self.take_waiting(now);
        let ids: Vec<_> = self.held.keys().copied().collect();
        let mut room = room;
        for operation in ids {
            self.say_lines(operation, now, &mut room);
            self.renew(operation, now);
            self.finish(operation, now);
        }
        // After every line: a measure is lost without harm.
        self.say_measures(now, room);
        std::mem::take(&mut self.todo)
    }

    /// When something becomes due by itself. An end that waits for something else is not: it would be due for ever.
    pub fn next_due(&self) -> Option<Instant> {
        let due = self.held.iter().filter_map(|(operation, held)| match &held.work {
            Work::Going { .. } if !held.lost && self.outbox.has_measure(*operation) => {
                Some(held.renew_at.min(held.measure_at))
            }
            Work::Over { finish_at, .. } if self.may_finish(*operation, held) => Some(*finish_at),
            _ if self.keeps(*operation, held) => Some(held.renew_at),
            _ => None,
        });
        due.min()
    }

    /// Since when the oldest proposal without an answer waits for it.
    pub fn unanswered_since(&self) -> Option<Instant> {
        // Numbers grow with time.
        self.asked.values().next().map(|asked| asked.at)
    }

    /// A session is up.
    pub fn welcomed(&mut self, welcome: &Welcome, now: Instant) {
        self.lease_seconds = welcome.lease_seconds.max(1);
        self.looked = 0;
        for held in self.held.values_mut() {
            held.renew_at = now;
            if let Work::Over { finish_at, .. } = &mut held.work {
                *finish_at = now;
            }
        }
        for id in &welcome.ended_operation_ids {
            if let Ok(operation) = id.parse() {
                self.ended_elsewhere(operation);
            }
        }
    }

    /// The session is gone. What it did not answer is said again in the next. Answers with what is to be done
    /// without one.
    pub fn disconnected(&mut self) -> Vec<Do> {
        for (_, asked) in std::mem::take(&mut self.asked).into_iter().rev() {
            if let Some(line) = asked.line {
                self.outbox.put_back(asked.operation, line);
            }
        }
        for held in self.held.values_mut() {
            // The coordinator may have accepted and its answer be lost. Then it is offered to nobody, and an end
            // under the fence of before would not count: the next session asks again.
            held.waiting = held.asked;
            held.asked = false;
        }
        // What was only offered is offered again.
        self.held
            .retain(|_, held| held.journaled || held.waiting || !matches!(held.work, Work::Idle));
        let mut left = std::mem::take(&mut self.todo);
        left.retain(|action| !matches!(action, Do::Send(_)));
        left
    }

    /// A look at the host with this number is reported, or could not be.
    pub fn reported(&mut self, look: u64) {
        self.looked = self.looked.max(look);
    }

    /// The coordinator offers an operation.
    pub fn offered(&mut self, offer: Offer, now: Instant) {
        let parsed = (
            offer.operation_id.parse::<OperationId>(),
            offer.resource.parse::<ResourceName>(),
        );
        let (operation, resource) = match parsed {
            (Ok(operation), Ok(resource)) => (operation, resource),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "an offer is ill-formed and ignored");
                return;
            }
        };
        let newest = self.state_dir.fences().newest(&resource);
        // The proposal says what was seen, so that the coordinator can raise its fence above it.
        if Fence(offer.fence) < newest && self.told_old(operation) {
            tracing::error!(
                %operation, %resource, fence = offer.fence, %newest,
                "an offer has an older fence than was seen: was the coordinator's store lost or restored?"
            );
        }
        if self.held.len() >= HELD_BOUND && !self.held.contains_key(&operation) {
            tracing::warn!(%operation, %resource, "an offer is ignored: {HELD_BOUND} are known already");
            return;
        }
        let held = self.held.entry(operation).or_insert_with(|| Held::idle(now));
        held.resource.get_or_insert_with(|| resource.clone());
        let request = offer.request.unwrap_or_default();
        held.offer = Some(Offered::new(resource, request, offer.attempt));
        held.waiting = !held.asked;
    }

    /// The coordinator answers a proposal.
    pub fn proposal_answered(&mut self, answer: ProposeAnswer, now: Instant) {
        let Some(asked) = self.asked.remove(&answer.request_id) else {
            tracing::warn!(request = answer.request_id, "an answer to no proposal is ignored");
            return;
        };
        let operation = asked.operation;
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        if asked.taking {
            held.asked = false;
        }
        let newest = match &held.resource {
            Some(resource) => self.state_dir.fences().newest(resource),
            None => Fence(0),
        };
        let under = held.lease.as_ref().map(|lease| lease.fence);
        if !answer.accepted && !asked.taking && under.is_some_and(|fence| asked.fence < fence) {
            // It was on its way while another proposal of ours got a newer fence, about which this says nothing.
            if let Some(line) = asked.line {
                self.outbox.put_back(operation, line);
            }
            return;
        }
        let fence = Fence(answer.fence);
        // What was never held is begun only under a fence of its own.
        let old = match under {
            None => fence <= newest,
            Some(_) => fence < newest,
        };
        if !answer.accepted || old {
            let reason = match answer.accepted {
                true => format!("it was accepted under fence {fence}, which is not newer than {newest}"),
                false => answer.reason,
            };
            self.refused(operation, asked.taking, &reason);
            return;
        }
        let lease = Lease {
            fence,
            token: self.token.clone(),
        };
        let changed = held.lease.as_ref() != Some(&lease);
        held.lease = Some(lease.clone());
        held.lost = false;
        held.good_until = asked.at + Duration::from_secs(self.lease_seconds.into());
        match &mut held.work {
            Work::Idle => self.start(operation),
            Work::Going {
                lease: tell, leave, ..
            } => {
                if changed {
                    tell.send_replace(lease);
                }
                leave.until(held.good_until);
            }
            Work::Over { finish_at, .. } if changed => *finish_at = now,
            Work::Over { .. } | Work::Dropping => {}
        }
    }

    /// Somebody wants an operation to stop. It is repeated, and what is not held here is the coordinator's matter.
    pub fn cancelled(&mut self, cancel: &Cancel) {
        let Ok(operation) = cancel.operation_id.parse::<OperationId>() else {
            tracing::error!(
                operation = cancel.operation_id,
                "a cancel is ill-formed and ignored"
            );
            return;
        };
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        let by = match cancel.by.as_str() {
            "" => "somebody",
            by => by,
        };
        let cancelling = held.cancelling();
        match &held.work {
            // Whether it may be is known when it starts, if it does.
            Work::Idle => {}
            Work::Going { cancel: tell, .. } if cancelling == Cancelling::Allowed => tell.cancel(by),
            Work::Going { .. } | Work::Over { .. } | Work::Dropping => return,
        }
        if held.cancelled.is_none() {
            tracing::info!(%operation, by, "the operation is cancelled");
            held.cancelled = Some(by.to_owned());
        }
    }

    /// Whether an old fence is news for `operation`, which is offered every few seconds.
    fn told_old(&mut self, operation: OperationId) -> bool {
        if self.old_fences.len() >= HELD_BOUND {
            self.old_fences.clear();
        }
        self.old_fences.insert(operation)
    }

    fn refused(&mut self, operation: OperationId, taking: bool, reason: &str) {
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        match &held.work {
            // A proposal to take it anew decides, which follows or is under way.
            _ if !taking && (held.asked || held.waiting) => {}
            Work::Idle if !held.journaled => {
                tracing::info!(%operation, reason, "the operation is not ours");
                self.held.remove(&operation);
            }
            Work::Idle => tracing::warn!(%operation, reason, "a begun operation is not ours again"),
            Work::Going { halt, .. } => {
                if !held.lost {
                    tracing::error!(%operation, reason, "the lease is lost: the operation stops at the next step");
                }
                held.lost = true;
                halt.cancel();
            }
            Work::Over { .. } | Work::Dropping => held.lost = true,
        }
    }

    fn start(&mut self, operation: OperationId) {
        let Some(held) = self.held.get_mut(&operation) else {
            return;
        };
        let (Some(offer), Some(lease)) = (held.offer.clone(), held.lease.clone()) else {
            return;
        };
        if self.stop.is_cancelled() {
            return;
        }
        let (tell, lease) = watch::channel(lease);
        let by = match offer.cancelling {
            Cancelling::Allowed => held.cancelled.clone(),
            Cancelling::Disabled => None,
        };
        let (canceller, cancel) = cancel::channel(by);
        let (granter, leave) = leave::channel(held.good_until);
        let halt = self.stop.child_token();
        held.work = Work::Going {
            halt: halt.clone(),
            lease: tell,
            cancel: canceller,
            leave: granter,
        };
        held.journaled = true;
        self.todo.push(Do::Start {
            accepted: Accepted {
                operation,
                resource: offer.resource,
                request: offer.request,
                attempt: offer.attempt,
            },
            lease,
            cancel,
            leave,
            halt,
        });
    }
}
