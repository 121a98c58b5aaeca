//! From a journal back to where the operation stood, by the same transitions that wrote it.

use thiserror::Error;

use super::state::{self, Ending, Event, Phase, Plan, State};
use crate::journal::record::{Entry, Record};

/// A journal that the plan cannot have written: the configuration changed meanwhile.
#[derive(Debug, Error)]
#[error(
    "the journal's record {number} ({found}) does not fit the plan as configured now ({expected}); the configuration changed while the operation ran"
)]
pub struct PlanMismatch {
    /// Which record, from 1.
    pub number: usize,
    /// What it says.
    pub found: String,
    /// What the plan would do there.
    pub expected: String,
}

/// The end that the journal records, if it does.
pub fn ending(records: &[Record]) -> Option<Ending> {
    records.iter().rev().find_map(|record| match &record.entry {
        Entry::Ended { outcome, message } => Some(Ending {
            outcome: *outcome,
            message: message.clone(),
        }),
        _ => None,
    })
}

/// Where the operation stood when the last of `records` was written.
///
/// # Errors
/// When the records are those of another plan.
pub fn resume(plan: &Plan, records: &[Record]) -> Result<State, PlanMismatch> {
    let mut state = State::initial(plan);
    for (index, record) in records.iter().enumerate() {
        let mismatch = |state: &State| PlanMismatch {
            number: index + 1,
            found: describe(&record.entry),
            expected: expected(plan, state),
        };
        let Some((step, event)) = event(&state, &record.entry) else {
            continue;
        };
        let here = match &state.phase {
            Phase::Looking { step } | Phase::Applying { step } | Phase::Undoing { step, .. } => {
                plan.steps.get(*step)
            }
            Phase::Finished(_) => None,
        };
        if here != Some(step) {
            return Err(mismatch(&state));
        }
        let Some(event) = event else { continue };
        let before = state.clone();
        state = state::next(plan, state, event).map_err(|_| mismatch(&before))?.0;
    }
    Ok(state)
}

/// The step that an entry is about and what it means in `state`; `None` when it is about no step.
fn event<'a>(state: &State, entry: &'a Entry) -> Option<(&'a String, Option<Event>)> {
    Some(match entry {
        Entry::StepStarted { step, before } => (step, Some(Event::Looked(*before))),
        Entry::StepDone { step, concluded } => (step, Some(Event::Applied(concluded.clone()))),
        Entry::StepFailed {
            step,
            cause,
            cancelled,
        } => {
            let event = match (cancelled, &state.phase) {
                (true, _) => Event::Cancelled(cause.clone()),
                (false, Phase::Looking { .. }) => Event::LookFailed(cause.clone()),
                (false, _) => Event::ApplyFailed(cause.clone()),
            };
            (step, Some(event))
        }
        // Written again when the undo runs again.
        Entry::UndoStarted { step } => (step, None),
        Entry::UndoDone { step } => (step, Some(Event::Undone)),
        Entry::UndoFailed { step, cause } => (step, Some(Event::UndoFailed(cause.clone()))),
        Entry::Begun { .. } | Entry::Took { .. } | Entry::Planned { .. } | Entry::Ended { .. } => {
            return None;
        }
    })
}

fn describe(entry: &Entry) -> String {
    match entry {
        Entry::StepStarted { step, .. } => format!("started '{step}'"),
        Entry::StepDone { step, .. } => format!("done '{step}'"),
        Entry::StepFailed { step, .. } => format!("failed '{step}'"),
        Entry::UndoStarted { step } => format!("undoing '{step}'"),
        Entry::UndoDone { step } => format!("undone '{step}'"),
        Entry::UndoFailed { step, .. } => format!("undo failed '{step}'"),
        Entry::Begun { .. } => "begun".to_owned(),
        Entry::Took { .. } => "took".to_owned(),
        Entry::Planned { .. } => "planned".to_owned(),
        Entry::Ended { .. } => "ended".to_owned(),
    }
}

fn expected(plan: &Plan, state: &State) -> String {
    match &state.phase {
        Phase::Looking { step } | Phase::Applying { step } => {
            format!("step '{}'", plan.steps.get(*step).map_or("", String::as_str))
        }
        Phase::Undoing { step, .. } => {
            format!("undo of '{}'", plan.steps.get(*step).map_or("", String::as_str))
        }
        Phase::Finished(_) => "nothing more".to_owned(),
    }
}
