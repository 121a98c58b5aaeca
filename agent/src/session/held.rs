//! One operation as this process holds it.

use hostler_common::error::Chain;
use hostler_common::id::{Fence, ProcessToken, ResourceName};
use hostler_common::operation::{Cancelling, Request};
use prost_types::Any;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::executor::cancel::Canceller;
use crate::executor::leave::Granter;
use crate::executor::resume;
use crate::executor::run::Lease;
use crate::executor::state::{Ending, Outcome};
use crate::journal::read::ReadError;
use crate::journal::record::{Entry, Record};
use crate::journal::state_dir::{Aside, Found};

/// An offer that may be proposed for.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) resource: ResourceName,
    pub(super) request: Any,
    pub(super) attempt: u32,
    /// What is malformed is not cancelled: it fails by itself.
    pub(super) cancelling: Cancelling,
}

impl Offered {
    pub(super) fn new(resource: ResourceName, request: Any, attempt: u32) -> Self {
        let cancelling = match Request::of(&request) {
            Ok(request) => request.kind().cancelling(),
            Err(_) => Cancelling::Disabled,
        };
        Self {
            resource,
            request,
            attempt,
            cancelling,
        }
    }
}

/// What this process does about an operation.
#[derive(Debug)]
pub(super) enum Work {
    /// Nothing: offered, or in the journal since an earlier process or lease.
    Idle,
    /// It runs.
    Going {
        /// Stops it at the next step.
        halt: CancellationToken,
        /// Where a new lease goes.
        lease: watch::Sender<Lease>,
        /// Where a cancel goes.
        cancel: Canceller,
        /// Where a renewal goes.
        leave: Granter,
    },
    /// It ended; the coordinator has not answered yet.
    Over {
        /// How it ended.
        ending: Ending,
        /// The look at the host that must be sent before.
        after_look: u64,
        /// When to say so (again).
        finish_at: Instant,
    },
    /// Its journal is being removed.
    Dropping,
}

/// What happens to the journal once nothing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is removed: the coordinator knows the end.
    Remove,
    /// It is kept for a person.
    SetAside(Aside),
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) work: Work,
    /// Known from an offer or from the journal.
    pub(super) resource: Option<ResourceName>,
    /// What we hold it under, or held it.
    pub(super) lease: Option<Lease>,
    /// Until when it is surely ours.
    pub(super) good_until: Instant,
    /// Whether the coordinator has told us that the lease is not ours any more.
    pub(super) lost: bool,
    /// The last offer of this session.
    pub(super) offer: Option<Offered>,
    /// The offer is to be proposed for as soon as there is room.
    pub(super) waiting: bool,
    /// The proposal to take it is on its way.
    pub(super) asked: bool,
    pub(super) renew_at: Instant,
    /// From when on it may be said how far it is.
    pub(super) measure_at: Instant,
    /// Who cancelled it, as far as this process has heard.
    pub(super) cancelled: Option<String>,
    /// There is, or will be, a journal.
    pub(super) journaled: bool,
    /// What its journal comes to when it is dropped.
    pub(super) fate: Fate,
}

impl Held {
    pub(super) fn idle(now: Instant) -> Self {
        Self {
            work: Work::Idle,
            resource: None,
            lease: None,
            good_until: now,
            lost: true,
            offer: None,
            waiting: false,
            asked: false,
            renew_at: now,
            measure_at: now,
            cancelled: None,
            journaled: false,
            fate: Fate::Remove,
        }
    }

    /// From what an earlier process left.
    pub(super) fn found(found: &Found, now: Instant) -> Self {
        let mut held = Self::idle(now);
        held.journaled = true;
        let (records, damage): (&[Record], _) = match &found.content {
            Ok(records) => (records, None),
            Err(error @ ReadError::Damaged { readable, .. }) => (readable, Some(error)),
            Err(error) => (&[], Some(error)),
        };
        for record in records {
            match &record.entry {
                Entry::Begun {
                    resource,
                    fence,
                    token,
                    ..
                } => {
                    held.resource = Some(resource.clone());
                    held.lease = Some(lease(*fence, token));
                }
                Entry::Took { fence, token } => held.lease = Some(lease(*fence, token)),
                _ => {}
            }
        }
        let ending = match damage {
            None => resume::ending(records),
            Some(error) => {
                tracing::error!(operation = %found.operation, error = %Chain(error), "a journal is damaged");
                held.fate = Fate::SetAside(Aside::Damaged);
                Some(Ending {
                    outcome: Outcome::NeedsAttention,
                    message: format!("{}; nobody knows how far it came", Chain(error)),
                })
            }
        };
        if let Some(ending) = ending {
            held.work = Work::Over {
                ending,
                after_look: 1,
                finish_at: now,
            };
        }
        held
    }

    /// Whether it may be stopped: not before an offer of it has told.
    pub(super) fn cancelling(&self) -> Cancelling {
        let offer = self.offer.as_ref();
        offer.map_or(Cancelling::Disabled, |offer| offer.cancelling)
    }

    pub(super) fn is_going(&self) -> bool {
        matches!(self.work, Work::Going { .. })
    }
}

fn lease(fence: Fence, token: &ProcessToken) -> Lease {
    Lease {
        fence,
        token: token.clone(),
    }
}
