//! Which step follows which: pure, total, without I/O.
//!
//! ```text
//!            Looked                Applied, more steps
//!  Looking ──────────▶ Applying ──────────────────────▶ Looking (the next step)
//!     │                  │   │ Applied, last step
//!     │ LookFailed,      │   └───────────────────────▶ Finished(Done)
//!     │ Cancelled        │ Lost ─────────────────────▶ Finished(NeedsAttention)
//!     ▼                  ▼ ApplyFailed; Cancelled; Lost, of a step that only looks
//!  Undoing (the step   Undoing (the failed step itself, then those before it)
//!  before it)            │ Undone, more      ──▶ Undoing (the step before)
//!                        │ Undone, the first ──▶ Finished(Failed)
//!                        │ UndoFailed, Lost  ──▶ Finished(NeedsAttention)
//! ```
//!
//! A step that could not even look has done nothing, so its own undo does not run. `Lost` is a call that did
//! not return in time: it still runs, so nobody may undo beside it, unless it changes nothing anyway. After an undo
//! that failed no further undo runs, since each undo relies on the later ones being undone.
//!
//! The invariants: every effect that writes comes before the effect that acts, and what has happened is written
//! before anything is said, since a run may stop wherever it speaks.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::step::Before;
use super::words;
use crate::journal::record::Entry;

/// The names of an operation's steps, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What a complete run is called, as "created hypervisor demo-guest-1".
    pub success: String,
    /// Each step's name.
    pub steps: Vec<String>,
}

/// How an operation ended on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step is done.
    Done,
    /// A step failed, and all that was done is undone.
    Failed,
    /// Nobody knows what is true.
    NeedsAttention,
}

/// The end of an operation, with words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// What happened, for a person. Never empty.
    pub message: String,
}

/// What made an operation unwind. Each is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The step failed.
    Fault(String),
    /// Somebody cancelled the operation, as "cancelled by …".
    Cancelled(String),
}

/// The step that failed, or at which somebody cancelled, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the plan.
    pub step: usize,
    /// Why.
    pub cause: Cause,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The step's object is being looked at; the step has not run.
    Looking {
        /// Its place in the plan.
        step: usize,
    },
    /// The step runs, or ran when the process died.
    Applying {
        /// Its place in the plan.
        step: usize,
    },
    /// The step's undo runs.
    Undoing {
        /// Its place in the plan.
        step: usize,
        /// What made it necessary.
        failure: Failure,
    },
    /// Nothing more happens.
    Finished(Ending),
}

/// Where an operation stands, and what its steps have left to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// What was true before, by step, for every step that has started.
    pub befores: Vec<Before>,
    /// What the operation came to, as the last step that said so has it. Nothing once it is being undone.
    pub concluded: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The look succeeded.
    Looked(Before),
    /// The look failed: the step did not run.
    LookFailed(String),
    /// The step is done; what it said that the operation came to.
    Applied(Option<String>),
    /// The step failed. It may have had some effect.
    ApplyFailed(String),
    /// Somebody cancelled the operation. A step that was running may have had some effect.
    Cancelled(String),
    /// The step is undone.
    Undone,
    /// The undo failed.
    UndoFailed(String),
    /// An apply or undo did not return in time, and still runs.
    Lost(String),
}

/// What is to be done next, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make it durable before going on.
    Write(Entry),
    /// Tell whoever watches.
    Say(String),
    /// Look at the step's object.
    Look {
        /// Its place in the plan.
        step: usize,
    },
    /// Run the step.
    Apply {
        /// Its place in the plan.
        step: usize,
        /// What was true before.
        before: Before,
    },
    /// Run the step's undo.
    Undo {
        /// Its place in the plan.
        step: usize,
        /// What was true before.
        before: Before,
    },
    /// Nothing more.
    End(Ending),
}

/// An event that cannot come in a state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{event:?} cannot happen in {phase:?}")]
pub struct IllegalTransition {
    /// The state.
    pub phase: Phase,
    /// The event.
    pub event: Event,
}

impl State {
    /// Before anything happened.
    pub fn initial(plan: &Plan) -> Self {
        let phase = match plan.steps.is_empty() {
            false => Phase::Looking { step: 0 },
            true => Phase::Finished(words::done(plan, None)),
        };
        Self {
            phase,
            befores: Vec::new(),
            concluded: None,
        }
    }

    /// Whether a cancel has an effect: not when the operation is being undone already, and not at its end.
    pub fn may_cancel(&self) -> bool {
        matches!(self.phase, Phase::Looking { .. } | Phase::Applying { .. })
    }
}

/// What to do in `state` when nothing is under way: at the start, and again after a crash.
pub fn begin(plan: &Plan, state: &State) -> Vec<Effect> {
    match &state.phase {
        Phase::Looking { step } => look(plan, *step),
        Phase::Applying { step } => {
            let before = before(state, *step);
            let line = format!("{} (again)", title(plan, *step));
            vec![Effect::Say(line), Effect::Apply { step: *step, before }]
        }
        Phase::Undoing { step, .. } => undo(plan, state, *step),
        Phase::Finished(ending) => vec![Effect::End(ending.clone())],
    }
}

/// What follows from `event` in `state`.
///
/// # Errors
/// When the event cannot happen there, which is a mistake in the caller or a journal of another plan.
pub fn next(plan: &Plan, state: State, event: Event) -> Result<(State, Vec<Effect>), IllegalTransition> {
    let State {
        phase,
        mut befores,
        concluded,
    } = state;
    Ok(match (phase, event) {
        (Phase::Looking { step }, Event::Looked(before)) => {
            befores.push(before);
            let write = Effect::Write(Entry::StepStarted {
                step: name(plan, step),
                before,
            });
            let state = State {
                phase: Phase::Applying { step },
                befores,
                concluded,
            };
            (state, vec![write, Effect::Apply { step, before }])
        }
        (Phase::Looking { step }, Event::LookFailed(cause)) => fail(plan, befores, step, Cause::Fault(cause)),
        (Phase::Applying { step }, Event::Applied(said)) => {
            let write = Effect::Write(Entry::StepDone {
                step: name(plan, step),
                concluded: said.clone(),
            });
            let concluded = said.or(concluded);
            if step + 1 < plan.steps.len() {
                let mut effects = vec![write];
                effects.extend(look(plan, step + 1));
                let state = State {
                    phase: Phase::Looking { step: step + 1 },
                    befores,
                    concluded,
                };
                (state, effects)
            } else {
                let ending = words::done(plan, concluded.as_deref());
                finish(befores, vec![write], ending)
            }
        }
        // The failed step may have had some effect, so its own undo runs too.
        (Phase::Applying { step }, Event::ApplyFailed(cause)) => {
            fail(plan, befores, step, Cause::Fault(cause))
        }
        (Phase::Looking { step } | Phase::Applying { step }, Event::Cancelled(cause)) => {
            fail(plan, befores, step, Cause::Cancelled(cause))
        }
        // A check on a mount that hangs has changed nothing, however late it returns.
        (Phase::Applying { step }, Event::Lost(cause)) if befores.get(step) == Some(&Before::Nothing) => {
            fail(plan, befores, step, Cause::Fault(cause))
        }
        (Phase::Applying { step }, Event::Lost(cause)) => {
            let ending = words::lost(plan, step, &cause);
            finish(befores, vec![], ending)
        }
        (Phase::Undoing { step, failure }, Event::Undone) => {
            let write = Effect::Write(Entry::UndoDone {
                step: name(plan, step),
            });
            unwind(plan, befores, step, failure, vec![write])
        }
        (Phase::Undoing { step, failure }, Event::UndoFailed(cause) | Event::Lost(cause)) => {
            let ending = words::stuck(plan, &befores, step, &failure, &cause);
            let write = Effect::Write(Entry::UndoFailed {
                step: name(plan, step),
                cause,
            });
            finish(befores, vec![write], ending)
        }
        (phase, event) => return Err(IllegalTransition { phase, event }),
    })
}

pub(super) fn name(plan: &Plan, step: usize) -> String {
    plan.steps.get(step).cloned().unwrap_or_default()
}

fn title(plan: &Plan, step: usize) -> String {
    format!("step {}/{}: {}", step + 1, plan.steps.len(), name(plan, step))
}

fn before(state: &State, step: usize) -> Before {
    state.befores.get(step).copied().unwrap_or(Before::Nothing)
}

fn look(plan: &Plan, step: usize) -> Vec<Effect> {
    vec![Effect::Say(title(plan, step)), Effect::Look { step }]
}

fn undo(plan: &Plan, state: &State, step: usize) -> Vec<Effect> {
    let before = before(state, step);
    let mut effects = Vec::with_capacity(3);
    if before != Before::Nothing {
        effects.push(Effect::Say(format!("undoing: {}", name(plan, step))));
    }
    effects.push(Effect::Write(Entry::UndoStarted {
        step: name(plan, step),
    }));
    effects.push(Effect::Undo { step, before });
    effects
}

fn fail(plan: &Plan, befores: Vec<Before>, step: usize, cause: Cause) -> (State, Vec<Effect>) {
    let failure = Failure { step, cause };
    let said = words::unwinding(plan, &befores, &failure);
    let (cause, cancelled) = match &failure.cause {
        Cause::Fault(cause) => (cause.clone(), false),
        Cause::Cancelled(cause) => (cause.clone(), true),
    };
    let write = Effect::Write(Entry::StepFailed {
        step: name(plan, step),
        cause,
        cancelled,
    });
    let started = befores.len();
    unwind(plan, befores, started, failure, vec![write, Effect::Say(said)])
}

/// Goes on with the undo of the step before `undone`, which is undone or has not started.
fn unwind(
    plan: &Plan,
    befores: Vec<Before>,
    undone: usize,
    failure: Failure,
    mut effects: Vec<Effect>,
) -> (State, Vec<Effect>) {
    let Some(step) = undone.checked_sub(1) else {
        let ending = words::failed(plan, &befores, &failure);
        return finish(befores, effects, ending);
    };
    let state = State {
        phase: Phase::Undoing { step, failure },
        befores,
        concluded: None,
    };
    effects.extend(undo(plan, &state, step));
    (state, effects)
}

fn finish(befores: Vec<Before>, mut effects: Vec<Effect>, ending: Ending) -> (State, Vec<Effect>) {
    effects.push(Effect::Write(Entry::Ended {
        outcome: ending.outcome,
        message: ending.message.clone(),
    }));
    effects.push(Effect::End(ending.clone()));
    let state = State {
        phase: Phase::Finished(ending),
        befores,
        concluded: None,
    };
    (state, effects)
}
