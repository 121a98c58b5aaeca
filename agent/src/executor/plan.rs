//! What an operation is going to do: decided once, journaled, and the same after each crash.

use std::sync::Arc;

use hostler_common::id::{OperationId, ResourceName};
use hostler_common::operation::Request;
use serde_json::Value;

use super::step::Step;

/// An operation that is to be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub operation: OperationId,
    /// On what.
    pub resource: ResourceName,
    /// What is asked for.
    pub request: Request,
}

/// The steps of an operation, and what they rest on.
pub struct Planned {
    /// In order. Their names follow from the job and from `decided` alone.
    pub steps: Vec<Box<dyn Step>>,
    /// What a complete run is called, when no step says more.
    pub success: String,
    /// What was decided by looking at the world, as which device to add. It is journaled before the first step runs,
    /// and comes back to the planner after a crash. Null where the request and the configuration say everything.
    pub decided: Value,
    /// Said before the first step, only the first time.
    pub says: Vec<String>,
}

/// Decides what a job needs, or makes the same steps again from what was decided before. It may block. An error is
/// one line: the operation fails with it, and nothing was done.
pub type PlanSource = Arc<dyn Fn(&Job, Option<&Value>) -> Result<Planned, String> + Send + Sync>;
