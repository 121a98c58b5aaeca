//! The steps of an expand or a shrink: look whether the plan fits, make one change after another, read the pool back.
//!
//! A change is made by the backend; here is what surrounds it. The invariant: just before a change that takes
//! something away, what is on the pool now still leaves it above its floor.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;
use hostler_common::id::PoolName;

use super::Backend;
use super::plan::{self, Reserve, StoragePlan};
use super::pool::{Change, PoolState};
use crate::executor::step::{Before, Progress, Step, StepError};

/// Reading a pool, its members and its spares: seconds, unless a disk is broken.
const LOOK_DEADLINE: Duration = Duration::from_secs(120);
/// Moving what is on a device takes as long as there is data, and it can be cancelled.
const MOVE_DEADLINE: Duration = Duration::from_secs(30 * 86_400);
/// Growing and adding are quick. Undoing them moves what has been written there in the meantime.
const GROW_DEADLINE: Duration = Duration::from_secs(86_400);
/// The kernel tells a size in blocks, so a mirror's can be a few of them off.
const ROUNDING: u64 = 1 << 20;

/// The pool that a plan is carried out on.
#[derive(Clone)]
pub struct Site {
    /// Its name.
    pub pool: PoolName,
    /// What it is made with.
    pub backend: Arc<dyn Backend>,
    /// What a shrink leaves free.
    pub reserve: Reserve,
}

/// The steps of `plan`, in order. Their names follow from the pool and the plan alone.
pub fn steps(site: &Site, plan: &Arc<StoragePlan>) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = vec![Box::new(CheckStep {
        site: site.clone(),
        plan: Arc::clone(plan),
    })];
    for change in &plan.changes {
        steps.push(Box::new(ChangeStep {
            site: site.clone(),
            change: change.clone(),
        }));
    }
    steps.push(Box::new(ReadBackStep {
        site: site.clone(),
        plan: Arc::clone(plan),
    }));
    steps
}

/// What has come between the decision and the first change ends the operation before anything is done.
struct CheckStep {
    site: Site,
    plan: Arc<StoragePlan>,
}

impl Step for CheckStep {
    fn name(&self) -> String {
        format!("check pool {}", self.site.pool)
    }

    fn deadline(&self) -> Duration {
        LOOK_DEADLINE
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        let state = self.site.backend.look()?;
        plan::still_fits(&state, &self.plan, self.site.reserve)
            .map_err(|misfit| StepError::new(&misfit, Retry::Never))
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}

struct ChangeStep {
    site: Site,
    change: Change,
}

impl Step for ChangeStep {
    fn name(&self) -> String {
        self.change.to_string()
    }

    fn deadline(&self) -> Duration {
        match self.change {
            Change::Remove { .. } | Change::Shrink { .. } => MOVE_DEADLINE,
            Change::Add { .. } | Change::Grow { .. } => GROW_DEADLINE,
        }
    }

    /// A change that somebody else made already is not ours to undo.
    fn look(&self) -> Result<Before, StepError> {
        Ok(match self.site.backend.is_done(&self.change)? {
            true => Before::Active,
            false => Before::Inactive,
        })
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        let Site { backend, reserve, .. } = &self.site;
        if backend.is_done(&self.change)? {
            return Ok(());
        }
        if let Change::Remove { .. } | Change::Shrink { .. } = self.change {
            let state = backend.look()?;
            plan::still_safe(&state, &self.change, *reserve)
                .map_err(|misfit| StepError::new(&misfit, Retry::Never))?;
        }
        backend.apply(&self.change, progress)
    }

    fn undo(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        match before {
            Before::Active => Ok(()),
            Before::Nothing | Before::Absent | Before::Inactive => {
                self.site.backend.revert(&self.change, progress)
            }
        }
    }
}

/// Tells what the operation came to, in the kernel's own figures.
struct ReadBackStep {
    site: Site,
    plan: Arc<StoragePlan>,
}

impl Step for ReadBackStep {
    fn name(&self) -> String {
        format!("read pool {} back", self.site.pool)
    }

    fn deadline(&self) -> Duration {
        LOOK_DEADLINE
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    /// Fails only where a change is not in effect: to undo all of a shrink that took days because somebody changed
    /// another device meanwhile would help nobody.
    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        let backend = &self.site.backend;
        for change in &self.plan.changes {
            match backend.is_done(change) {
                Ok(true) => {}
                Ok(false) => {
                    let problem = format!(
                        "the pool does not show it: {change}; was it changed by somebody else meanwhile?"
                    );
                    return Err(StepError::message(problem, Retry::Never));
                }
                // As of a device that was removed days ago and has been carried away since.
                Err(fault) => progress.say(format!(
                    "cannot tell any more whether it holds: {change}: {fault}"
                )),
            }
        }
        let state = backend.look()?;
        if state.size.0.abs_diff(self.plan.after.0) > ROUNDING {
            progress.say(format!(
                "the kernel says {} where {} were planned: was the pool changed by somebody else meanwhile?",
                state.size.exact(),
                self.plan.after.exact()
            ));
        }
        progress.conclude(outcome(&self.site.pool, self.plan.before, &state));
        Ok(())
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}

/// As `default grew by 1.00 GiB to 4.00 GiB; spare 2.00 GiB`.
fn outcome(pool: &PoolName, before: Bytes, state: &PoolState) -> String {
    let (size, spare) = (state.size, plan::spare(state));
    let what = match size >= before {
        true => format!("grew by {}", size.minus(before)),
        false => format!("shrank by {}", before.minus(size)),
    };
    format!("{pool} {what} to {size}; used {}; spare {spare}", state.used)
}
