//! Operations of a store that was restored, or that lost its last commits: what became of them is not known.
//!
//! Run again they might undo what was asked for later; so they end. Invariant: none of them is offered to an agent.

use hostler_common::id::OperationId;

use super::engine::{Engine, EngineError};
use super::record::OperationRecord;
use super::sentences::ending;
use super::state::{Event, Limits, Operator, Phase};
use crate::registry::Registry;
use crate::store::Store;

const SAID: &str = "the store was restored or has lost changes: what became of this operation is not known. See what its host \
                    says, then repeat the call if it is still wanted";

/// Ends every operation of `store` that has not ended: FAILED when nobody had begun, else it needs attention. Clients'
/// locks stay, and run out by themselves. Answers with which have ended.
///
/// # Errors
/// When the store fails. Those before it have ended.
pub async fn end_all(store: &Store, registry: &Registry) -> Result<Vec<OperationId>, EngineError> {
    // Nobody takes them once more: the lease that they have is their last.
    let last = Limits { max_attempts: 1 };
    let engine = Engine::new(store.clone(), registry.clone(), last);
    let mut ended = Vec::new();
    for record in registry.operations() {
        let (Operator::Agent, Some(event)) = (record.operator(), end(&record)) else {
            continue;
        };
        match engine
            .apply(record.id, None, event, |after| ending(after, SAID))
            .await
        {
            Ok(_) => ended.push(record.id),
            // The end of one that needs attention has ended what waited behind it.
            Err(EngineError::Illegal { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

fn end(record: &OperationRecord) -> Option<Event> {
    match &record.life.phase {
        Phase::Scheduled => Some(Event::HostAbsent),
        Phase::Active(lease) => Some(Event::LeaseExpired(lease.clone())),
        Phase::Ended(_) => None,
    }
}
