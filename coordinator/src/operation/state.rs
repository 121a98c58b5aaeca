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
//! ```
//!
//! What an agent has begun ends only by its word: CancelRequested is recorded then, and changes no phase.
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
        (Ended(End::NeedsAttention), On::Resolved) => to(Ended(End::Failed), vec![Do::EndHold]),
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
        (Scheduled, On::LeaseExpired(_) | On::LeaseRan { .. }) | (Active(_), On::HostAbsent | On::Barred) => {
            Err(No::NotNow)
        }
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
mod tests {
    use super::Operator::{Agent, Client};
    use super::*;

    const LIMITS: Limits = Limits { max_attempts: 3 };

    fn proposal(token: &str, fence: u64) -> Proposal {
        Proposal {
            token: token.parse().unwrap(),
            fence: Fence(fence),
            newest_fence: Fence(0),
            lock_for_seconds: 30,
            is_disabled_cancel: false,
            now: UnixMillis(1_000),
        }
    }

    fn active(token: &str, fence: u64) -> Phase {
        Phase::Active(lease(proposal(token, 0), Fence(fence), 0))
    }

    fn expired(token: &str, fence: u64) -> Event {
        Event::LeaseExpired(lease(proposal(token, 0), Fence(fence), 0))
    }

    fn ran(token: &str, fence: u64) -> Event {
        Event::LeaseRan {
            judged: lease(proposal(token, 0), Fence(fence), 0),
            ran_ms: 12_000,
        }
    }

    fn disabled() -> Lease {
        let undoable_no_more = Proposal {
            is_disabled_cancel: true,
            ..proposal("a", 0)
        };
        lease(undoable_no_more, Fence(7), 0)
    }

    fn phases() -> Vec<Phase> {
        let ends = [End::Completed, End::Failed, End::NeedsAttention];
        let mut phases = vec![Phase::Scheduled, active("a", 7), Phase::Active(disabled())];
        phases.extend(ends.map(Phase::Ended));
        phases
    }

    fn events() -> Vec<Event> {
        let mut events = vec![
            Event::HostAbsent,
            Event::Barred,
            Event::Resolved,
            Event::CancelRequested { by: "ada".into() },
            Event::LeaseExpired(disabled()),
            expired("a", 7),
            expired("a", 6),
            ran("a", 7),
            ran("a", 6),
        ];
        for token in ["a", "b"] {
            for fence in [0, 6, 7, 8] {
                events.push(Event::Proposed(proposal(token, fence)));
                for end in [End::Completed, End::Failed, End::NeedsAttention] {
                    let token = token.parse().unwrap();
                    events.push(Event::Finished {
                        token,
                        fence: Fence(fence),
                        end,
                    });
                }
            }
        }
        events
    }

    #[test]
    fn every_pair_of_phase_and_event_keeps_the_rules() {
        for (operator, phase) in [Agent, Client]
            .into_iter()
            .flat_map(|who| phases().into_iter().map(move |phase| (who, phase)))
        {
            for attempts in 0..4 {
                for event in events() {
                    let life = Life {
                        phase: phase.clone(),
                        attempts,
                    };
                    let outcome = next(LIMITS, operator, Fence(7), &life, event.clone());
                    let case = format!("{operator:?} {life:?} {event:?} {outcome:?}");
                    let Ok((after, effects)) = outcome else { continue };
                    let ended_before = matches!(phase, Phase::Ended(_));
                    assert!(
                        !ended_before || event == Event::Resolved,
                        "an end is final: {case}"
                    );
                    assert!(after.attempts >= attempts, "attempts only grow: {case}");
                    if let [Effect::RecordCancel(by)] = &effects[..] {
                        let never_begun = phase == Phase::Scheduled;
                        assert!(
                            operator == Agent || never_begun,
                            "there is nobody to tell: {case}"
                        );
                        assert_eq!(event, Event::CancelRequested { by: by.clone() }, "{case}");
                        assert_eq!(after, life, "a wish alone changes nothing: {case}");
                        continue;
                    }
                    match &after.phase {
                        Phase::Active(lease) => {
                            let raised = effects.contains(&Effect::RaiseFence(lease.fence));
                            let renewed = matches!(&phase, Phase::Active(held) if held.token == lease.token && held.fence == lease.fence);
                            assert!(raised ^ renewed, "a new holder has a new fence: {case}");
                            assert!(!raised || lease.fence > Fence(7), "fences grow: {case}");
                        }
                        Phase::Ended(End::NeedsAttention) => {
                            assert_eq!(effects, [Effect::HoldForAttention], "{case}");
                        }
                        Phase::Ended(_) => assert!(
                            effects == [Effect::Release] || effects == [Effect::EndHold],
                            "an end frees the resource: {case}"
                        ),
                        Phase::Scheduled => {
                            assert!(matches!(event, Event::LeaseExpired(_)), "{case}");
                            assert_eq!(
                                operator, Agent,
                                "nobody else goes on with a client's lock: {case}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_former_holder_changes_nothing() {
        let life = Life {
            phase: active("b", 8),
            attempts: 2,
        };
        for end in [End::Completed, End::Failed, End::NeedsAttention] {
            for (token, fence) in [("a", 7), ("a", 8), ("b", 7)] {
                let event = Event::Finished {
                    token: token.parse().unwrap(),
                    fence: Fence(fence),
                    end,
                };
                assert!(
                    next(LIMITS, Agent, Fence(8), &life, event).is_err(),
                    "{token} {fence} ended it"
                );
            }
        }
        let stolen = next(LIMITS, Agent, Fence(8), &life, Event::Proposed(proposal("a", 7)));
        assert!(matches!(stolen, Err(IllegalTransition::HeldByOther { .. })));
    }

    #[test]
    fn the_last_attempt_ends_in_attention_since_something_may_be_left() {
        let life = Life {
            phase: active("a", 7),
            attempts: 3,
        };
        let (after, effects) = next(LIMITS, Agent, Fence(7), &life, expired("a", 7)).unwrap();
        assert_eq!(after.phase, Phase::Ended(End::NeedsAttention));
        assert_eq!(effects, [Effect::HoldForAttention]);
        let earlier = Life { attempts: 2, ..life };
        assert_eq!(
            next(LIMITS, Agent, Fence(7), &earlier, expired("a", 7))
                .unwrap()
                .0
                .phase,
            Phase::Scheduled
        );
    }

    #[test]
    fn the_fence_rises_above_the_newest_that_the_host_has_seen_unless_that_is_nonsense() {
        let life = Life {
            phase: Phase::Scheduled,
            attempts: 0,
        };
        let granted = |newest| {
            let wish = Proposal {
                newest_fence: Fence(newest),
                ..proposal("a", 0)
            };
            next(LIMITS, Agent, Fence(7), &life, Event::Proposed(wish)).map(|(_, effects)| effects)
        };
        for (newest, raised) in [(0, 8), (6, 8), (7, 8), (8, 9), (7 + (1 << 32), 8 + (1 << 32))] {
            assert_eq!(
                granted(newest),
                Ok(vec![Effect::RaiseFence(Fence(raised))]),
                "{newest}"
            );
        }
        for theirs in [Fence(8 + (1 << 32)), Fence(u64::MAX)] {
            let stored = Fence(7);
            assert_eq!(
                granted(theirs.0),
                Err(IllegalTransition::FenceTooNew { theirs, stored })
            );
        }
    }

    #[test]
    fn a_renewal_moves_the_lock_and_keeps_the_fence() {
        let life = Life {
            phase: active("a", 7),
            attempts: 1,
        };
        let later = Proposal {
            now: UnixMillis(50_000),
            ..proposal("a", 7)
        };
        let (after, effects) = next(LIMITS, Agent, Fence(7), &life, Event::Proposed(later)).unwrap();
        let Phase::Active(lease) = after.phase else {
            panic!("{after:?}")
        };
        assert_eq!(
            (lease.fence, lease.locked_until, effects),
            (Fence(7), UnixMillis(80_000), vec![])
        );
    }

    #[test]
    fn what_the_diagrams_show_can_happen_and_nothing_else() {
        assert_eq!(
            possible(Agent),
            [
                "Active CancelRequested Active",
                "Active Finished Completed",
                "Active Finished Failed",
                "Active Finished NeedsAttention",
                "Active LeaseExpired Scheduled",
                "Active LeaseRan Active",
                "Active Proposed Active",
                "NeedsAttention Resolved Failed",
                "Scheduled Barred Failed",
                "Scheduled CancelRequested Scheduled",
                "Scheduled HostAbsent NeedsAttention",
                "Scheduled Proposed Active",
            ]
        );
        let of_clients: Vec<_> = possible(Client)
            .into_iter()
            .filter(|line| line.starts_with("Active"))
            .collect();
        assert_eq!(
            of_clients,
            [
                "Active CancelRequested Failed",
                "Active Finished Completed",
                "Active Finished Failed",
                "Active Finished NeedsAttention",
                "Active LeaseExpired Completed",
                "Active LeaseExpired Failed",
                "Active LeaseRan Active",
                "Active Proposed Active",
            ]
        );
    }

    /// Every `phase event phase` that can happen to what has been taken once.
    fn possible(operator: Operator) -> Vec<String> {
        let mut possible = Vec::new();
        for phase in phases() {
            for event in events() {
                let life = Life {
                    phase: phase.clone(),
                    attempts: 1,
                };
                if let Ok((after, _)) = next(LIMITS, operator, Fence(7), &life, event.clone()) {
                    let event = format!("{event:?}");
                    let name = |phase: &Phase| match phase {
                        Phase::Scheduled => "Scheduled".to_owned(),
                        Phase::Active(_) => "Active".to_owned(),
                        Phase::Ended(end) => format!("{end:?}"),
                    };
                    let event = event.split([' ', '(', '{']).next().unwrap().to_owned();
                    possible.push(format!("{} {event} {}", name(&phase), name(&after.phase)));
                }
            }
        }
        possible.sort();
        possible.dedup();
        possible
    }

    #[test]
    fn a_cancel_ends_what_has_not_begun_and_is_recorded_for_what_has() {
        let cancel = || Event::CancelRequested { by: "ada".into() };
        let of = |phase: Phase, attempts| next(LIMITS, Agent, Fence(7), &Life { phase, attempts }, cancel());
        let (after, effects) = of(Phase::Scheduled, 0).unwrap();
        assert_eq!(
            (after.phase, effects),
            (Phase::Ended(End::Failed), vec![Effect::Release])
        );
        for (phase, attempts) in [(Phase::Scheduled, 1), (active("a", 7), 1)] {
            let (after, effects) = of(phase.clone(), attempts).unwrap();
            let recorded = vec![Effect::RecordCancel("ada".into())];
            assert_eq!((after.phase, effects), (phase, recorded));
        }
        let Phase::Active(mut lease) = active("a", 7) else {
            panic!("not active")
        };
        lease.is_disabled_cancel = true;
        let until = lease.locked_until;
        assert_eq!(
            of(Phase::Active(lease), 1),
            Err(IllegalTransition::CancelDisabled {
                operator: Agent,
                until
            })
        );
        for end in [End::Completed, End::Failed, End::NeedsAttention] {
            assert_eq!(of(Phase::Ended(end), 1), Err(IllegalTransition::Ended));
        }
    }

    #[test]
    fn a_lock_of_a_client_ends_by_its_time_or_a_cancel_and_nothing_goes_on_with_it() {
        let of = |lease: Lease, event| {
            let life = Life {
                phase: Phase::Active(lease),
                attempts: 1,
            };
            next(LIMITS, Client, Fence(7), &life, event)
        };
        let Phase::Active(allowed) = active("a", 7) else {
            panic!("not active")
        };
        let cancel = || Event::CancelRequested { by: "eve".into() };
        for (lease, event, end) in [
            (allowed.clone(), expired("a", 7), End::Completed),
            (allowed.clone(), cancel(), End::Failed),
            (disabled(), Event::LeaseExpired(disabled()), End::Failed),
        ] {
            let (after, effects) = of(lease, event).unwrap();
            assert_eq!((after.phase, effects), (Phase::Ended(end), vec![Effect::Release]));
        }
        let until = disabled().locked_until;
        assert_eq!(
            of(disabled(), cancel()),
            Err(IllegalTransition::CancelDisabled {
                operator: Client,
                until
            })
        );
    }

    #[test]
    fn what_a_lease_has_run_is_remembered_until_it_is_renewed() {
        let life = Life {
            phase: active("a", 7),
            attempts: 1,
        };
        let (noted, _) = next(LIMITS, Client, Fence(7), &life, ran("a", 7)).unwrap();
        let ran_ms = |life: &Life| match &life.phase {
            Phase::Active(lease) => lease.ran_ms,
            other => panic!("{other:?}"),
        };
        assert_eq!(ran_ms(&noted), 12_000);
        let (renewed, _) = next(
            LIMITS,
            Client,
            Fence(7),
            &noted,
            Event::Proposed(proposal("a", 7)),
        )
        .unwrap();
        assert_eq!(ran_ms(&renewed), 0);
        assert_eq!(
            next(LIMITS, Client, Fence(7), &renewed, ran("a", 7)),
            Err(IllegalTransition::NotNow),
            "it was renewed since it was judged"
        );
    }

    proptest::proptest! {
        /// Any sequence of events of three processes: fences only grow, each holder has its own, an end is final.
        #[test]
        fn any_sequence_of_events_keeps_the_invariants(
            choices in proptest::collection::vec((0..7usize, 0..3usize, 0..4u64), 0..60)
        ) {
            let mut life = Life { phase: Phase::Scheduled, attempts: 0 };
            let mut fence = Fence(0);
            let mut holders: Vec<(Fence, ProcessToken)> = Vec::new();
            for (kind, who, back) in choices {
                let token: ProcessToken = ["a", "b", "c"][who].parse().unwrap();
                let claimed = Fence(fence.0.saturating_sub(back));
                let end = [End::Completed, End::Failed, End::NeedsAttention][who];
                let event = match kind {
                    0 => Event::Proposed(Proposal { token, fence: claimed, ..proposal("a", 0) }),
                    1 => Event::Finished { token, fence: claimed, end },
                    2 => match &life.phase {
                        Phase::Active(lease) => Event::LeaseExpired(lease.clone()),
                        Phase::Scheduled | Phase::Ended(_) => expired("a", claimed.0),
                    },
                    3 => Event::HostAbsent,
                    4 => Event::Barred,
                    5 => Event::CancelRequested { by: token.to_string() },
                    _ => Event::Resolved,
                };
                let ended = matches!(life.phase, Phase::Ended(_));
                let Ok((after, effects)) = next(LIMITS, Agent, fence, &life, event.clone()) else { continue };
                proptest::prop_assert!(!ended || event == Event::Resolved, "invariant_an_end_is_final");
                for effect in effects {
                    if let Effect::RaiseFence(raised) = effect {
                        proptest::prop_assert!(raised > fence, "invariant_fences_grow");
                        fence = raised;
                    }
                }
                if let Phase::Active(lease) = &after.phase {
                    proptest::prop_assert_eq!(lease.fence, fence, "invariant_the_holder_has_the_newest_fence");
                    holders.push((lease.fence, lease.token.clone()));
                }
                proptest::prop_assert!(after.attempts <= LIMITS.max_attempts, "invariant_attempts_are_bounded");
                life = after;
            }
            for (fence, token) in &holders {
                let same = holders.iter().filter(|(other, _)| other == fence).all(|(_, other)| other == token);
                proptest::prop_assert!(same, "invariant_one_holder_a_fence");
            }
        }
    }
}
