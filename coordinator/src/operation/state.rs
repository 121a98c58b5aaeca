//! The life of an operation, pure: what happened in, what is to be done out. Only the engine applies it.
//!
//! ```text
//!             Proposed                     Finished: done
//!  Scheduled ───────────▶ Active ─────────────────────────▶ Ended(Completed)
//!     │  ▲                 │  │ Finished: failed, undone
//!     │  └── LeaseExpired ─┘  ├─────────────────────────────▶ Ended(Failed)
//!     │                       │ Finished: needs attention; LeaseExpired after the last attempt
//!     │                       └─────────────────────────────▶ Ended(NeedsAttention) ── Resolved ──▶ Ended(Failed)
//!     ├── HostAbsent, CancelRequested, never begun; Barred ──▶ Ended(Failed)
//!     └── HostAbsent, begun before ──────────────────────────▶ Ended(NeedsAttention)
//!  Scheduled, Active, Ended(NeedsAttention) ── HostLost ─────▶ Ended(Failed)
//! ```
//!
//! What an agent has begun ends only by its word: CancelRequested is recorded then, and changes no phase. Unless a
//! person declares the host dead: then whatever is left is left on a machine that is no more.
//!
//! A client's lock is Active from its first commit on. Nobody else can go on with it, and it leaves nothing behind:
//!
//! ```text
//!             Finished: released; LeaseExpired, cancel allowed
//!  Active ──────────────────────────────────────────────────────▶ Ended(Completed)
//!     └── CancelRequested; LeaseExpired, cancel disabled ───────▶ Ended(Failed)
//! ```

use std::fmt;
use std::time::Duration;

use hostler_common::id::{Fence, ProcessToken};
use hostler_common::units::UnixMillis;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Its phase.
    pub phase: Phase,
    /// How often an agent has taken it.
    pub attempts: u32,
}

/// A phase of an operation's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for its turn, its host, or another try.
    Scheduled,
    /// An agent holds it.
    Active(Lease),
    /// It is over.
    Ended(End),
}

/// n0stack's lock on the resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The process that holds it.
    pub token: ProcessToken,
    /// The fence that it holds.
    pub fence: Fence,
    /// What was last proposed, in seconds. Liveness counts it on the monotonic clock.
    pub lock_for_seconds: u32,
    /// How often it has been renewed: what tells one renewal from another, whatever the clocks do.
    #[serde(default)]
    pub renewals: u64,
    /// How long it had run when that was last written down: what a restart does not give again. Only of a
    /// client's lock, which may be for days.
    #[serde(default)]
    pub ran_ms: u64,
    /// When it ends on the wall clock, for people.
    pub locked_until: UnixMillis,
    /// n0stack's `is_disabled_cancel`.
    pub is_disabled_cancel: bool,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Done.
    Completed,
    /// Not done, and nothing of it is left.
    Failed,
    /// Nobody knows what is true of the resource. It stays locked until a person has looked.
    NeedsAttention,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process proposes.
    Proposed(Proposal),
    /// A process reports the end.
    Finished {
        /// Its token.
        token: ProcessToken,
        /// The fence that it holds.
        fence: Fence,
        /// How it ended.
        end: End,
    },
    /// The holder has not renewed this lease in time.
    LeaseExpired(Lease),
    /// This lease has run for so long, and is to be remembered as such.
    LeaseRan {
        /// As it was when that was found.
        judged: Lease,
        /// In milliseconds.
        ran_ms: u64,
    },
    /// The host has had no session for longer than anyone should wait.
    HostAbsent,
    /// A person has declared the host dead. What it held is free.
    HostLost,
    /// The resource needs attention, so that nothing else may begin on it.
    Barred,
    /// A person has looked.
    Resolved,
    /// Somebody wants it to stop.
    CancelRequested {
        /// Who, and why.
        by: String,
    },
}

/// A process's proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its token.
    pub token: ProcessToken,
    /// The fence that it believes to hold; zero for a first proposal.
    pub fence: Fence,
    /// The newest fence that its host has seen on the resource. It is newer than the stored one only after the
    /// store was lost or restored.
    pub newest_fence: Fence,
    /// The lock that it wants from now, in seconds.
    pub lock_for_seconds: u32,
    /// n0stack's `is_disabled_cancel`.
    pub is_disabled_cancel: bool,
    /// The wall clock.
    pub now: UnixMillis,
}

/// What the engine does in the same commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The resource's fence becomes this one.
    RaiseFence(Fence),
    /// The resource is free for the next in its queue.
    Release,
    /// The resource stays locked, and what waits for it is barred.
    HoldForAttention,
    /// The hold for attention ends.
    EndHold,
    /// The agent is told, now and whenever it takes the operation again, that somebody wants it to stop.
    RecordCancel(String),
}

/// Who carries an operation out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The agent of its host. It journals what it does, so that another attempt goes on or undoes.
    Agent,
    /// The client that asked for it, which holds the resource for purposes of its own.
    Client,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Client => "holder",
        })
    }
}

/// The limits of a life.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How often an operation is taken before it is given up.
    pub max_attempts: u32,
}

/// How far a host may be ahead of the store. No store loses so many holders of one resource, and the bound
/// leaves room for further fences whatever an agent says.
const FENCES_AHEAD_AT_MOST: u64 = 1 << 32;

/// The event cannot happen in this phase. It changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IllegalTransition {
    /// Another process holds it.
    #[error("it is held by another operator until {until}")]
    HeldByOther {
        /// On the wall clock.
        until: UnixMillis,
    },
    /// The sender was the holder once.
    #[error("fence {theirs} is not the holder's: another operator has taken it since")]
    FormerHolder {
        /// The sender's fence.
        theirs: Fence,
    },
    /// The host cannot have seen so new a fence.
    #[error(
        "the host says that it has seen fence {theirs} while the stored one is {stored}, which cannot be; look at fences.json in the agent's state_dir"
    )]
    FenceTooNew {
        /// What the host says.
        theirs: Fence,
        /// The resource's, as stored.
        stored: Fence,
    },
    /// Nobody holds it.
    #[error("nobody holds it: it waits to be taken again")]
    NotHeld,
    /// It is over.
    #[error("it has ended")]
    Ended,
    /// Its agent cannot undo it, or its client does not want it to end early.
    #[error("its {operator} does not allow it to be cancelled (it holds it until {until})")]
    CancelDisabled {
        /// Who does not.
        operator: Operator,
        /// On the wall clock.
        until: UnixMillis,
    },
    /// It does not need attention.
    #[error("it does not need attention")]
    NoAttentionNeeded,
    /// The event makes no sense now.
    #[error("it cannot happen now")]
    NotNow,
}

/// What follows from `event` for what `operator` carries out. `fence` is the resource's, as stored.
///
/// # Errors
/// [`IllegalTransition`] when the event cannot happen; then nothing follows.
pub fn next(
    limits: Limits,
    operator: Operator,
    fence: Fence,
    life: &Life,
    event: Event,
) -> Result<(Life, Vec<Effect>), IllegalTransition> {
    use {Effect as Do, Event as On, IllegalTransition as No, Phase::*};
    let attempts = life.attempts;
    let to = |phase, effects: Vec<Effect>| Ok((Life { phase, attempts }, effects));
    match (&life.phase, event) {
        (Scheduled, On::Proposed(proposal))
            if proposal.newest_fence.0.saturating_sub(fence.0) > FENCES_AHEAD_AT_MOST =>
        {
            Err(No::FenceTooNew {
                theirs: proposal.newest_fence,
                stored: fence,
            })
        }
        (Scheduled, On::Proposed(proposal)) => {
            let raised = fence.max(proposal.newest_fence).next();
            Ok((
                Life {
                    phase: Active(lease(proposal, raised, 0)),
                    attempts: attempts.saturating_add(1),
                },
                vec![Do::RaiseFence(raised)],
            ))
        }
        (Active(held), On::Proposed(proposal)) if held.token != proposal.token => Err(No::HeldByOther {
            until: held.locked_until,
        }),
        // Zero: the holder asks again because it lost the answer.
        (Active(held), On::Proposed(proposal)) if proposal.fence == held.fence || proposal.fence.0 == 0 => {
            to(Active(lease(proposal, held.fence, held.renewals.saturating_add(1))), vec![])
        }
        (Active(_), On::Proposed(proposal)) => Err(No::FormerHolder {
            theirs: proposal.fence,
        }),
        (Active(held), On::Finished { token, fence, end }) if held.token == token && held.fence == fence => {
            to(
                Ended(end),
                vec![if end == End::NeedsAttention {
                    Do::HoldForAttention
                } else {
                    Do::Release
                }],
            )
        }
        (Active(_), On::Finished { fence, .. }) => Err(No::FormerHolder { theirs: fence }),
        // Renewed since it was judged.
        (Active(held), On::LeaseExpired(judged) | On::LeaseRan { judged, .. }) if *held != judged => {
            Err(No::NotNow)
        }
        (Active(held), On::LeaseRan { ran_ms, .. }) => to(
            Active(Lease {
                ran_ms,
                ..held.clone()
            }),
            vec![],
        ),
        // Whoever forbids a cancel is expected to say how it ended.
        (Active(held), On::LeaseExpired(_)) if operator == Operator::Client => {
            match held.is_disabled_cancel {
                true => to(Ended(End::Failed), vec![Do::Release]),
                false => to(Ended(End::Completed), vec![Do::Release]),
            }
        }
        (Active(_), On::LeaseExpired(_)) if attempts >= limits.max_attempts => {
            to(Ended(End::NeedsAttention), vec![Do::HoldForAttention])
        }
        (Active(_), On::LeaseExpired(_)) => to(Scheduled, vec![]),
        // Whoever took it before may have left something behind.
        (Scheduled, On::HostAbsent) if attempts > 0 => {
            to(Ended(End::NeedsAttention), vec![Do::HoldForAttention])
        }
        (Scheduled, On::HostAbsent | On::Barred) => to(Ended(End::Failed), vec![Do::Release]),
        (Scheduled, On::Finished { .. }) => Err(No::NotHeld),
        (Scheduled | Active(_), On::HostLost) if operator == Operator::Agent => {
            to(Ended(End::Failed), vec![Do::Release])
        }
        (Ended(End::NeedsAttention), On::Resolved | On::HostLost) => to(Ended(End::Failed), vec![Do::EndHold]),
        (Ended(_) | Scheduled | Active(_), On::Resolved) => Err(No::NoAttentionNeeded),
        (Ended(_), _) => Err(No::Ended),
        (Scheduled, On::CancelRequested { .. }) if attempts == 0 => to(Ended(End::Failed), vec![Do::Release]),
        (Active(held), On::CancelRequested { .. }) if held.is_disabled_cancel => Err(No::CancelDisabled {
            operator,
            until: held.locked_until,
        }),
        (Active(_), On::CancelRequested { .. }) if operator == Operator::Client => {
            to(Ended(End::Failed), vec![Do::Release])
        }
        (Scheduled | Active(_), On::CancelRequested { by }) => {
            to(life.phase.clone(), vec![Do::RecordCancel(by)])
        }
        (Scheduled, On::LeaseExpired(_) | On::LeaseRan { .. })
        | (Active(_), On::HostAbsent | On::Barred)
        // A client's lock is not held by the host.
        | (Scheduled | Active(_), On::HostLost) => Err(No::NotNow),
    }
}

fn lease(proposal: Proposal, fence: Fence, renewals: u64) -> Lease {
    let lasts = Duration::from_secs(u64::from(proposal.lock_for_seconds));
    Lease {
        token: proposal.token,
        fence,
        lock_for_seconds: proposal.lock_for_seconds,
        renewals,
        ran_ms: 0,
        locked_until: proposal.now.plus(lasts),
        is_disabled_cancel: proposal.is_disabled_cancel,
    }
}

#[cfg(test)]
mod tests;
