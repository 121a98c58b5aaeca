//! How an operation's end is put for people: what made it unwind, what was undone, what is left.
//!
//! Pure. What follows from the words is not its matter: nobody reads them but people.

use super::state::{Cause, Ending, Failure, Outcome, Plan, name};
use super::step::Before;

/// What made the operation unwind, for people.
pub(super) fn unwinding(plan: &Plan, befores: &[Before], failure: &Failure) -> String {
    let step = name(plan, failure.step);
    match &failure.cause {
        Cause::Fault(cause) => format!("step '{step}' failed: {cause}"),
        Cause::Cancelled(cause) if failure.step < befores.len() => format!("{cause} in step '{step}'"),
        Cause::Cancelled(cause) => format!("{cause} before step '{step}'"),
    }
}

/// Names of the steps in `range` that change something, latest first.
fn changed(plan: &Plan, befores: &[Before], range: std::ops::Range<usize>) -> Vec<String> {
    range
        .rev()
        .filter(|step| {
            befores
                .get(*step)
                .is_some_and(|before| *before != Before::Nothing)
        })
        .map(|step| name(plan, step))
        .collect()
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}

pub(super) fn done(plan: &Plan, concluded: Option<&str>) -> Ending {
    Ending {
        outcome: Outcome::Done,
        message: concluded.unwrap_or(&plan.success).to_owned(),
    }
}

pub(super) fn failed(plan: &Plan, befores: &[Before], failure: &Failure) -> Ending {
    let put_back = put_back(plan, befores, 0..befores.len());
    let put_back = put_back.unwrap_or_else(|| "nothing to undo".to_owned());
    Ending {
        outcome: Outcome::Failed,
        message: format!("{}; {put_back}", unwinding(plan, befores, failure)),
    }
}

/// What the undos of a range came to: what the operation had made is gone, what was there before it is as before. None
/// when there was nothing to undo.
fn put_back(plan: &Plan, befores: &[Before], range: std::ops::Range<usize>) -> Option<String> {
    let of = |wanted: fn(Before) -> bool| {
        let steps = range.clone().rev();
        let steps = steps.filter(|step| befores.get(*step).copied().is_some_and(wanted));
        steps.map(|step| name(plan, step)).collect::<Vec<_>>()
    };
    let made = of(|before| before == Before::Absent);
    let existed = of(|before| matches!(before, Before::Inactive | Before::Active));
    Some(match (made.is_empty(), existed.is_empty()) {
        (true, true) => return None,
        (false, true) => format!("undone: {}", made.join(", ")),
        (true, false) => format!("as before: {}", existed.join(", ")),
        (false, false) => format!("undone: {}; as before: {}", made.join(", "), existed.join(", ")),
    })
}

pub(super) fn lost(plan: &Plan, step: usize, cause: &str) -> Ending {
    Ending {
        outcome: Outcome::NeedsAttention,
        message: format!(
            "step '{}' has an unknown outcome: {cause}; done before it: {}; nothing was undone",
            name(plan, step),
            list(&plan.steps[..step])
        ),
    }
}

pub(super) fn stuck(plan: &Plan, befores: &[Before], step: usize, failure: &Failure, cause: &str) -> Ending {
    let put_back = put_back(plan, befores, step + 1..befores.len());
    Ending {
        outcome: Outcome::NeedsAttention,
        message: format!(
            "{}; undoing '{}' failed: {cause}{}; not undone: {}",
            unwinding(plan, befores, failure),
            name(plan, step),
            put_back.map_or_else(String::new, |words| format!("; {words}")),
            list(&changed(plan, befores, 0..step + 1)),
        ),
    }
}
