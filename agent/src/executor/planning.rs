//! From a request, or from what the journal says was decided, to the steps of a run.
//!
//! It asks the source and runs nothing. The invariant: what was decided once is what the source gets back, so
//! that a crash never changes a plan whose steps have begun.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::{OperationId, ResourceName};
use hostler_common::operation::Request;
use prost_types::Any;
use serde_json::Value;

use super::plan::{Job, PlanSource};
use super::state::Plan;
use super::step::Step;
use crate::blocking::Blocking;
use crate::journal::record::{Entry, Record};

/// Planning reads the configuration and, for storage, every device; one that hangs for longer is broken.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the journal says of the plan.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Past {
    /// Nothing has been decided or done.
    Fresh,
    /// This was decided; steps may have run.
    Decided(Value),
    /// Steps have run and nothing was written about the plan: the request says everything, or an earlier version
    /// wrote it.
    Begun,
}

impl Past {
    pub(super) fn of(records: &[Record]) -> Self {
        let decided = records.iter().find_map(|record| match &record.entry {
            Entry::Planned { detail } => Some(detail.clone()),
            _ => None,
        });
        let taken = |record: &Record| matches!(record.entry, Entry::Begun { .. } | Entry::Took { .. });
        match decided {
            Some(detail) => Self::Decided(detail),
            None if records.iter().all(taken) => Self::Fresh,
            None => Self::Begun,
        }
    }
}

/// A plan that can be run.
pub(super) struct Ready {
    pub(super) plan: Plan,
    pub(super) steps: Vec<Arc<dyn Step>>,
    /// To be journaled before the first step, when it is new.
    pub(super) entry: Option<Entry>,
    /// To be said before the first step, when they are new.
    pub(super) says: Vec<String>,
}

/// Plans the operation. Err is one line.
pub(super) async fn plan(
    source: &PlanSource,
    blocking: &Blocking,
    (operation, resource, request): (OperationId, ResourceName, &Any),
    past: Past,
) -> Result<Ready, String> {
    let request = Request::of(request).map_err(|error| format!("cannot plan: {}", Chain(&error)))?;
    let job = Job {
        operation,
        resource,
        request,
    };
    let source = Arc::clone(source);
    let fresh = past == Past::Fresh;
    let call = move || {
        let decided = match &past {
            Past::Decided(detail) => Some(detail),
            Past::Fresh | Past::Begun => None,
        };
        source(&job, decided)
    };
    let planned = blocking
        .run("planning", DEADLINE, call)
        .await
        .map_err(|fault| fault.to_string())??;
    let steps: Vec<Arc<dyn Step>> = planned.steps.into_iter().map(Arc::from).collect();
    let detail = planned.decided;
    Ok(Ready {
        plan: Plan {
            success: planned.success,
            steps: steps.iter().map(|step| step.name()).collect(),
        },
        steps,
        entry: (fresh && !detail.is_null()).then_some(Entry::Planned { detail }),
        says: match fresh {
            true => planned.says,
            false => Vec::new(),
        },
    })
}
