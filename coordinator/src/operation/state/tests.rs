//! Every pair of a phase and an event, and what follows from the pairs that matter most.

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
        Event::HostLost,
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
                    !ended_before || matches!(event, Event::Resolved | Event::HostLost),
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
            "Active HostLost Failed",
            "Active LeaseExpired Scheduled",
            "Active LeaseRan Active",
            "Active Proposed Active",
            "NeedsAttention HostLost Failed",
            "NeedsAttention Resolved Failed",
            "Scheduled Barred Failed",
            "Scheduled CancelRequested Scheduled",
            "Scheduled HostAbsent NeedsAttention",
            "Scheduled HostLost Failed",
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
        choices in proptest::collection::vec((0..8usize, 0..3usize, 0..4u64), 0..60)
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
                6 => Event::HostLost,
                _ => Event::Resolved,
            };
            let ended = matches!(life.phase, Phase::Ended(_));
            let Ok((after, effects)) = next(LIMITS, Agent, fence, &life, event.clone()) else { continue };
            proptest::prop_assert!(!ended || matches!(event, Event::Resolved | Event::HostLost), "invariant_an_end_is_final");
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
