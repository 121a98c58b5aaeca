//! Every state with every event: what follows, and what is refused.

use hostler_agent::executor::state::{
    Cause, Effect, Ending, Event, Failure, Outcome, Phase, Plan, State, begin, next,
};
use hostler_agent::executor::step::Before;
use hostler_agent::journal::record::Entry;

fn plan() -> Plan {
    Plan {
        success: "all is done".into(),
        steps: ["check", "volume", "domain"].map(String::from).to_vec(),
    }
}

fn every_state() -> Vec<State> {
    let all = [Before::Nothing, Before::Absent, Before::Inactive];
    let mut states = Vec::new();
    for step in 0..3 {
        states.push(State {
            phase: Phase::Looking { step },
            befores: all[..step].to_vec(),
            concluded: (step > 0).then(|| "so far".to_owned()),
        });
        states.push(State {
            phase: Phase::Applying { step },
            befores: all[..=step].to_vec(),
            concluded: None,
        });
        for started in step + 1..=3 {
            // The step that failed is the last that started, or one that could not look or was not begun.
            for failed in [started - 1, started].into_iter().filter(|failed| *failed < 3) {
                for cause in [
                    Cause::Fault("bad".into()),
                    Cause::Cancelled("cancelled by ann".into()),
                ] {
                    let failure = Failure { step: failed, cause };
                    states.push(State {
                        phase: Phase::Undoing { step, failure },
                        befores: all[..started].to_vec(),
                        concluded: None,
                    });
                }
            }
        }
    }
    states.push(State {
        phase: Phase::Finished(Ending {
            outcome: Outcome::Done,
            message: "all is done".into(),
        }),
        befores: all.to_vec(),
        concluded: None,
    });
    states
}

fn every_event() -> Vec<Event> {
    vec![
        Event::Looked(Before::Absent),
        Event::LookFailed("no look".into()),
        Event::Applied(None),
        Event::Applied(Some("grown".into())),
        Event::ApplyFailed("no apply".into()),
        Event::Cancelled("cancelled by ann".into()),
        Event::Undone,
        Event::UndoFailed("no undo".into()),
        Event::Lost("too long".into()),
    ]
}

fn legal(phase: &Phase, event: &Event) -> bool {
    match phase {
        Phase::Looking { .. } => {
            matches!(
                event,
                Event::Looked(_) | Event::LookFailed(_) | Event::Cancelled(_)
            )
        }
        Phase::Applying { .. } => matches!(
            event,
            Event::Applied(_) | Event::ApplyFailed(_) | Event::Cancelled(_) | Event::Lost(_)
        ),
        Phase::Undoing { .. } => matches!(event, Event::Undone | Event::UndoFailed(_) | Event::Lost(_)),
        Phase::Finished(_) => false,
    }
}

/// At most one effect acts, it is the last, and an end is written before it is told.
fn invariant_writes_come_before_the_one_act(effects: &[Effect]) {
    let acts: Vec<_> = effects
        .iter()
        .enumerate()
        .filter(|(_, effect)| !matches!(effect, Effect::Write(_) | Effect::Say(_)))
        .collect();
    assert_eq!(acts.len(), 1, "{effects:?}");
    assert_eq!(acts[0].0, effects.len() - 1, "{effects:?}");
    if let Effect::End(ending) = acts[0].1 {
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Write(Entry::Ended { .. }))),
            "{effects:?}"
        );
        assert!(!ending.message.is_empty());
    }
}

#[test]
fn every_state_takes_exactly_its_events() {
    let plan = plan();
    for state in every_state() {
        for event in every_event() {
            let result = next(&plan, state.clone(), event.clone());
            assert_eq!(
                result.is_ok(),
                legal(&state.phase, &event),
                "{state:?} with {event:?}"
            );
            let cancel = matches!(event, Event::Cancelled(_));
            assert!(!cancel || state.may_cancel() == result.is_ok(), "{state:?}");
            let Ok((following, effects)) = result else {
                continue;
            };
            invariant_writes_come_before_the_one_act(&effects);
            // Whatever follows can itself be begun again after a crash with the same last act.
            assert_eq!(
                begin(&plan, &following).last(),
                effects.last(),
                "{state:?} with {event:?}"
            );
        }
    }
}

#[test]
fn a_plan_that_succeeds_runs_every_step_once_in_order() {
    let plan = plan();
    let mut state = State::initial(&plan);
    let mut effects = begin(&plan, &state);
    let mut acts = Vec::new();
    loop {
        let act = effects.pop().expect("every transition acts");
        acts.push(act.clone());
        let event = match act {
            Effect::Look { .. } => Event::Looked(Before::Absent),
            Effect::Apply { .. } => Event::Applied(None),
            Effect::End(ending) => {
                assert_eq!(ending.outcome, Outcome::Done);
                break;
            }
            other => panic!("{other:?}"),
        };
        (state, effects) = next(&plan, state, event).unwrap();
    }
    assert_eq!(acts.len(), 7);
}

#[test]
fn the_failed_step_is_undone_first_and_the_message_names_what_was() {
    let plan = plan();
    let state = State {
        phase: Phase::Applying { step: 2 },
        befores: vec![Before::Nothing, Before::Absent, Before::Absent],
        concluded: None,
    };
    let (state, effects) = next(&plan, state, Event::ApplyFailed("no room".into())).unwrap();
    assert_eq!(
        effects.last(),
        Some(&Effect::Undo {
            step: 2,
            before: Before::Absent
        })
    );
    let (state, _) = next(&plan, state, Event::Undone).unwrap();
    let (state, _) = next(&plan, state, Event::Undone).unwrap();
    let (state, _) = next(&plan, state, Event::Undone).unwrap();
    let Phase::Finished(ending) = state.phase else {
        panic!("{state:?}")
    };
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.message,
        "step 'domain' failed: no room; undone: domain, volume"
    );
}

#[test]
fn a_step_that_could_not_look_has_nothing_to_undo() {
    let plan = plan();
    let (state, _) = next(
        &plan,
        State::initial(&plan),
        Event::LookFailed("no libvirt".into()),
    )
    .unwrap();
    let Phase::Finished(ending) = state.phase else {
        panic!("{state:?}")
    };
    assert_eq!(ending.message, "step 'check' failed: no libvirt; nothing to undo");
}

#[test]
fn an_undo_that_fails_stops_the_unwinding_and_says_what_is_left() {
    let plan = plan();
    let state = State {
        phase: Phase::Undoing {
            step: 1,
            failure: Failure {
                step: 2,
                cause: Cause::Fault("no room".into()),
            },
        },
        befores: vec![Before::Nothing, Before::Absent, Before::Absent],
        concluded: None,
    };
    let (state, _) = next(&plan, state, Event::UndoFailed("busy".into())).unwrap();
    let Phase::Finished(ending) = state.phase else {
        panic!("{state:?}")
    };
    assert_eq!(ending.outcome, Outcome::NeedsAttention);
    assert_eq!(
        ending.message,
        "step 'domain' failed: no room; undoing 'volume' failed: busy; undone: domain; not undone: volume"
    );
}

#[test]
fn a_step_that_only_looks_fails_when_it_hangs_and_one_that_changes_needs_attention() {
    let plan = plan();
    let lost = |step, befores: &[Before]| {
        let state = State {
            phase: Phase::Applying { step },
            befores: befores.to_vec(),
            concluded: None,
        };
        next(&plan, state, Event::Lost("too long".into()))
            .unwrap()
            .0
            .phase
    };
    let outcome = |phase| match phase {
        Phase::Finished(ending) => Some(ending.outcome),
        _ => None,
    };
    let (looks, changes) = (Before::Nothing, Before::Absent);
    assert!(matches!(lost(0, &[looks]), Phase::Undoing { step: 0, .. }));
    assert!(matches!(
        lost(1, &[changes, looks]),
        Phase::Undoing { step: 1, .. }
    ));
    assert_eq!(outcome(lost(0, &[changes])), Some(Outcome::NeedsAttention));
    assert_eq!(outcome(lost(1, &[looks, changes])), Some(Outcome::NeedsAttention));
}

/// Where the operation is after each of `events`, from its beginning.
fn after(plan: &Plan, events: &[Event]) -> (State, Vec<Effect>) {
    let first = (State::initial(plan), Vec::new());
    events.iter().fold(first, |(state, _), event| {
        next(plan, state, event.clone()).unwrap_or_else(|error| panic!("{error}"))
    })
}

fn ending(state: State) -> Ending {
    match state.phase {
        Phase::Finished(ending) => ending,
        phase => panic!("{phase:?}"),
    }
}

#[test]
fn the_last_step_that_said_what_came_of_it_has_the_last_word() {
    let plan = plan();
    let looked = || Event::Looked(Before::Absent);
    let said = |words: &str| Event::Applied(Some(words.into()));
    for (events, message) in [
        ([said("first"), said("second"), Event::Applied(None)], "second"),
        ([said("first"), Event::Applied(None), said("third")], "third"),
        (
            [Event::Applied(None), Event::Applied(None), Event::Applied(None)],
            "all is done",
        ),
    ] {
        let events: Vec<_> = events.into_iter().flat_map(|event| [looked(), event]).collect();
        let (state, effects) = after(&plan, &events);
        assert_eq!(ending(state).message, message);
        let written = effects.iter().any(
            |effect| matches!(effect, Effect::Write(Entry::Ended { message: written, .. }) if written == message),
        );
        assert!(written, "{effects:?}");
    }
}

#[test]
fn a_cancel_before_a_step_undoes_the_steps_before_it_and_says_so() {
    let plan = plan();
    let by = || Event::Cancelled("cancelled by ann".into());
    let (looked, applied) = (
        Event::Looked(Before::Absent),
        Event::Applied(Some("words".into())),
    );
    let (state, effects) = after(&plan, &[looked.clone(), applied.clone(), by()]);
    assert_eq!(
        effects.first(),
        Some(&Effect::Write(Entry::StepFailed {
            step: "volume".into(),
            cause: "cancelled by ann".into(),
            cancelled: true,
        }))
    );
    assert!(
        effects.contains(&Effect::Say("cancelled by ann before step 'volume'".into())),
        "{effects:?}"
    );
    let (state, _) = next(&plan, state, Event::Undone).unwrap();
    let ended = ending(state);
    assert_eq!(ended.outcome, Outcome::Failed);
    assert_eq!(
        ended.message,
        "cancelled by ann before step 'volume'; undone: check"
    );

    let (state, _) = after(&plan, &[by()]);
    assert_eq!(
        ending(state).message,
        "cancelled by ann before step 'check'; nothing to undo"
    );
}

#[test]
fn a_cancel_in_a_step_undoes_that_step_too_and_says_so() {
    let plan = plan();
    let (looked, applied) = (Event::Looked(Before::Absent), Event::Applied(None));
    let cancelled = Event::Cancelled("cancelled by ann".into());
    let events = [looked.clone(), applied, looked, cancelled];
    let (state, effects) = after(&plan, &events);
    assert!(
        matches!(effects.last(), Some(Effect::Undo { step: 1, .. })),
        "{effects:?}"
    );
    let undone = events.iter().cloned().chain([Event::Undone, Event::Undone]);
    let (ended, _) = after(&plan, &undone.collect::<Vec<_>>());
    assert_eq!(
        ending(ended).message,
        "cancelled by ann in step 'volume'; undone: volume, check"
    );
    let (stuck, _) = next(&plan, state, Event::UndoFailed("busy".into())).unwrap();
    let stuck = ending(stuck);
    assert_eq!(stuck.outcome, Outcome::NeedsAttention);
    assert_eq!(
        stuck.message,
        "cancelled by ann in step 'volume'; undoing 'volume' failed: busy; not undone: volume, check"
    );
}
