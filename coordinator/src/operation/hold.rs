//! Locks that clients hold: taken, renewed and given back by proposals, as n0stack has it.
//!
//! Such a lock is an operation that is ACTIVE from its first commit on, so queue, lease, fence and history are those
//! of every operation. It never waits in a queue. Invariant: only who took it, with the token it was taken with,
//! renews or releases it; a token alone can be read by everybody who may look.

use hostler_common::id::{Fence, HostName, OperationId, ResourceName};
use hostler_common::operation::{Cancelling, Hold, HoldWish, Purpose};
use hostler_common::units::UnixMillis;
use prost_types::Any;
use thiserror::Error;

use super::engine::{Engine, EngineError, put};
use super::locks::Lock;
use super::reading::{Held, read_lock};
use super::record::{Logs, OperationRecord, StoredRequest};
use super::sentences;
use super::state::{Effect, End, Event, Life, Operator, Phase, Proposal, next};
use super::wish::Asker;
use crate::failpoint::Point;
use crate::store::{Compare, Revision, Transaction, json};

/// A proposal by a client.
#[derive(Debug, Clone)]
pub struct WantedHold {
    /// What it asks for.
    pub hold: Hold,
    /// As it was received.
    pub received: Any,
    /// The host of the resource.
    pub host: HostName,
}

/// Why a client does not get, renew or give back a lock. Nothing happened.
#[derive(Debug, Error)]
pub enum HoldError {
    /// Another client holds the resource, or this one with another token.
    #[error("{} is {}", .0.resource, sentences::locked(.0))]
    Locked(Box<OperationRecord>),
    /// An operation on it runs or waits.
    #[error("{}", sentences::busy(.0))]
    Busy(Box<OperationRecord>),
    /// It needs attention.
    #[error("{}", sentences::attention(resource, *operation))]
    Attention {
        /// The resource.
        resource: ResourceName,
        /// The operation that left it so.
        operation: OperationId,
    },
    /// There is nothing to give back.
    #[error("nobody holds a lock on {resource}: there is nothing to release")]
    NotHeld {
        /// The resource.
        resource: ResourceName,
    },
    /// The store failed, or holds what cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Engine {
    /// A client takes, renews or gives back the lock on a resource. What it returns is durable.
    ///
    /// # Errors
    /// When it may not, or the store fails; then nothing happened.
    pub async fn hold(&self, wanted: &WantedHold, asker: &Asker) -> Result<OperationRecord, HoldError> {
        let resource = &wanted.hold.resource;
        loop {
            let entry = self.store.get(&Lock::key(resource)).await;
            let held = read_lock(resource, entry.map_err(EngineError::from)?)?;
            if let Some(operation) = held.value.attention {
                return Err(HoldError::Attention {
                    resource: resource.clone(),
                    operation,
                });
            }
            let outcome = match (held.value.turn(), wanted.hold.wish) {
                (None, HoldWish::Release) => {
                    return Err(HoldError::NotHeld {
                        resource: resource.clone(),
                    });
                }
                (None, HoldWish::Have(seconds)) => match self.take(wanted, seconds, asker, held).await? {
                    Some(record) => return Ok(record),
                    None => continue,
                },
                (Some(first), _) => {
                    let first = self.holder(first, wanted, asker).await?;
                    self.keep(&first, wanted, asker).await
                }
            };
            match outcome {
                // It ended or was renewed since it was read.
                Err(
                    EngineError::Illegal { .. }
                    | EngineError::NotItsTurn { .. }
                    | EngineError::NoSuchOperation { .. },
                ) => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    /// The operation `id`, which is in the way unless it is the asker's own lock.
    async fn holder(
        &self,
        id: OperationId,
        wanted: &WantedHold,
        asker: &Asker,
    ) -> Result<OperationRecord, HoldError> {
        let record = self.get(id).await?;
        if record.operator() == Operator::Agent {
            return Err(HoldError::Busy(Box::new(record)));
        }
        let has_token = record
            .lease()
            .is_some_and(|lease| lease.token == wanted.hold.token);
        // What has ended since its lock was read is in nobody's way: the caller looks again.
        let is_own = has_token && record.requested_by == asker.identity;
        match is_own || record.end().is_some() {
            true => Ok(record),
            false => Err(HoldError::Locked(Box::new(record))),
        }
    }

    /// None when the resource changed meanwhile.
    async fn take(
        &self,
        wanted: &WantedHold,
        seconds: u32,
        asker: &Asker,
        held: Held<Lock>,
    ) -> Result<Option<OperationRecord>, EngineError> {
        let (mut lock, now) = (held.value, UnixMillis::now());
        let record = self.begin(wanted, seconds, asker, &mut lock, now)?;
        let mut transaction = Transaction::default();
        transaction.compares.push(Compare {
            key: OperationRecord::key(record.id),
            modified: Revision(0),
        });
        put(
            &mut transaction,
            Lock::key(&record.resource),
            &lock,
            held.modified,
        );
        transaction
            .writes
            .push(json::put(OperationRecord::key(record.id), &record));
        Point::HoldBefore.pass();
        let committed = self.commit(transaction).await?;
        Point::HoldAfter.pass();
        Ok(committed.then_some(record))
    }

    fn begin(
        &self,
        wanted: &WantedHold,
        seconds: u32,
        asker: &Asker,
        lock: &mut Lock,
        now: UnixMillis,
    ) -> Result<OperationRecord, EngineError> {
        let id = OperationId::generate();
        let fresh = Life {
            phase: Phase::Scheduled,
            attempts: 0,
        };
        let event = Event::Proposed(proposal(&wanted.hold, seconds, now));
        let (life, effects) = next(self.limits, Operator::Client, lock.fence, &fresh, event)
            .map_err(|source| EngineError::Illegal { id, source })?;
        for effect in effects {
            if let Effect::RaiseFence(fence) = effect {
                lock.fence = fence;
            }
        }
        lock.queue.push(id);
        let mut record = OperationRecord {
            id,
            resource: wanted.hold.resource.clone(),
            host: wanted.host.clone(),
            kind: Purpose::HOLD,
            request: StoredRequest::from(&wanted.received),
            requested_by: asker.identity.clone(),
            requested_at: now,
            reason: asker.reason.clone(),
            life,
            fence: lock.fence,
            logs: Logs::default(),
            ended_at: None,
            cancel: None,
        };
        let first = format!(
            "operation {id}: {} is {}",
            record.resource,
            sentences::locked(&record)
        );
        record.logs.push(now, first);
        log(&mut record, &wanted.hold.log_message, now);
        Ok(record)
    }

    /// Renews or releases the asker's own lock.
    async fn keep(
        &self,
        own: &OperationRecord,
        wanted: &WantedHold,
        asker: &Asker,
    ) -> Result<OperationRecord, EngineError> {
        let message = &wanted.hold.log_message;
        match wanted.hold.wish {
            HoldWish::Have(seconds) => {
                let event = Event::Proposed(proposal(&wanted.hold, seconds, UnixMillis::now()));
                self.change(own.id, None, event, |record, now| {
                    log(record, message, now);
                    if !asker.reason.is_empty() && record.reason != asker.reason {
                        record.reason.clone_from(&asker.reason);
                        let line = sentences::locked(record);
                        record.logs.push(now, line);
                    }
                })
                .await
            }
            HoldWish::Release => {
                let event = Event::Finished {
                    token: wanted.hold.token.clone(),
                    fence: own.fence,
                    end: End::Completed,
                };
                self.change(own.id, None, event, |record, now| {
                    log(record, message, now);
                    let why = match asker.reason.as_str() {
                        "" => String::new(),
                        reason => format!(": {reason}"),
                    };
                    record
                        .logs
                        .push(now, format!("released by {}{why}", asker.identity));
                })
                .await
            }
        }
    }
}

fn log(record: &mut OperationRecord, message: &str, now: UnixMillis) {
    if !message.is_empty() {
        record.logs.push(now, sentences::line(message));
    }
}

fn proposal(hold: &Hold, seconds: u32, now: UnixMillis) -> Proposal {
    Proposal {
        token: hold.token.clone(),
        // A client does not speak of fences. That it is the holder was looked up in the record.
        fence: Fence::default(),
        newest_fence: Fence::default(),
        lock_for_seconds: seconds,
        is_disabled_cancel: hold.cancelling == Cancelling::Disabled,
        now,
    }
}
