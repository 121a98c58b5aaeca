//! Tells the session of a host whose turn it is: it offers what nobody holds, and passes on that somebody wants
//! what is held to stop. It decides nothing: the agent takes an offer by a proposal, which the engine judges, and
//! ends what it holds by its own word. So whatever is told may be lost or repeated.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::id::ResourceName;
use hostler_common::rpc::hostler::agent::v1::{Cancel, Offer, SessionResponse, session_response};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::failpoint::Point;
use crate::operation::locks::Lock;
use crate::operation::record::OperationRecord;
use crate::operation::state::{Operator, Phase};
use crate::registry::{Change, Registry};
use crate::session::registry::Sessions;

/// How often everything is told again, in case it was lost.
const REPEAT: Duration = Duration::from_secs(5);

/// Starts the dispatcher in `tasks`. It ends when the registry is gone.
pub fn spawn(registry: Registry, sessions: Sessions, tasks: &mut JoinSet<()>) {
    tasks.spawn(run(registry, sessions));
}

async fn run(registry: Registry, sessions: Sessions) {
    let mut changes = registry.changes();
    let mut repeat = interval(REPEAT);
    repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: a broadcast receiver keeps what it has not yielded, an interval its next tick.
        // The tick first: it comes seldom, and no flood of changes keeps it back.
        let change = tokio::select! {
            biased;
            _ = repeat.tick() => Ok(Change::Everything),
            change = changes.recv() => change,
        };
        match change {
            Ok(Change::Operation(resource)) => tell_turn(&registry, &sessions, &resource),
            // A lock never changes without an operation on its resource, which tells of it.
            Ok(Change::Hypervisor(_) | Change::Pool(_)) => {}
            Ok(Change::Host(host)) => {
                for record in registry.turns().iter().filter(|record| record.host == host) {
                    tell_turn(&registry, &sessions, &record.resource);
                }
            }
            Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                for record in registry.turns() {
                    tell_turn(&registry, &sessions, &record.resource);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell_turn(registry: &Registry, sessions: &Sessions, resource: &ResourceName) {
    let Some((record, lock)) = registry.turn(resource) else {
        return;
    };
    let Some(message) = news(&record, &lock) else {
        return;
    };
    let Some(session) = sessions.of(&record.host) else {
        return;
    };
    let offered = matches!(message, session_response::Message::Offer(_));
    match offered {
        true => Point::OfferBefore.pass(),
        false => Point::CancelTell.pass(),
    }
    // A full channel means a stuck network: it is told again.
    let _ = session.outbound.try_send(SessionResponse {
        message: Some(message),
    });
    if offered {
        Point::OfferAfter.pass();
    }
}

/// What the agent should know of an operation whose turn it is; None when there is nothing.
fn news(record: &Arc<OperationRecord>, lock: &Lock) -> Option<session_response::Message> {
    // A client's lock is nothing for agents.
    if record.operator() == Operator::Client {
        return None;
    }
    match (&record.life.phase, &record.cancel) {
        (Phase::Scheduled, _) => Some(session_response::Message::Offer(offer(record, lock))),
        (Phase::Active(lease), Some(by)) if !lease.is_disabled_cancel => {
            Some(session_response::Message::Cancel(Cancel {
                operation_id: record.id.to_string(),
                by: by.clone(),
            }))
        }
        (Phase::Active(_) | Phase::Ended(_), _) => None,
    }
}

fn offer(record: &Arc<OperationRecord>, lock: &Lock) -> Offer {
    Offer {
        operation_id: record.id.to_string(),
        resource: record.resource.to_string(),
        fence: lock.fence.0,
        request: Some((&record.request).into()),
        attempt: record.life.attempts + 1,
    }
}
