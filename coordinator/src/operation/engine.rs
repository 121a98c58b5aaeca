//! The one writer of operation state: every change is decided by [`super::state`] and committed with its
//! lock in one transaction, under the compare that nothing changed meanwhile.
//!
//! A conflict reads and decides again. So any number of callers work at once, their commits are grouped by
//! the store, and a second coordinator would change nothing here.

use hostler_common::id::{HostName, OperationId, ResourceName};
use hostler_common::units::UnixMillis;
use serde::Serialize;
use thiserror::Error;

use super::locks::Lock;
use super::reading::{Held, Source};
use super::record::OperationRecord;
use super::sentences;
use super::state::{Effect, Event, IllegalTransition, Lease, Limits, Operator, Phase, next};
use crate::failpoint;
use crate::registry::Registry;
use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Revision, Store, StoreError, Transaction};

/// Decides and commits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) store: Store,
    pub(super) registry: Registry,
    pub(super) limits: Limits,
}

/// Why the engine did not do it.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No such operation is kept.
    #[error("no operation {id} is kept")]
    NoSuchOperation {
        /// Its id.
        id: OperationId,
    },
    /// It cannot happen now.
    #[error("operation {id} was not changed")]
    Illegal {
        /// The operation.
        id: OperationId,
        /// Why.
        #[source]
        source: IllegalTransition,
    },
    /// It is not the turn of this operation.
    #[error("operation {id} waits for others on {resource}")]
    NotItsTurn {
        /// The operation.
        id: OperationId,
        /// What it waits for.
        resource: ResourceName,
    },
    /// The sender's host does not own the resource.
    #[error("operation {id} is for host {host}")]
    ForeignHost {
        /// The operation.
        id: OperationId,
        /// Its host.
        host: HostName,
    },
    /// An agent speaks of a lock that a client holds.
    #[error("operation {id} is a lock that {by} holds, and nothing for agents")]
    NotForAgents {
        /// The operation.
        id: OperationId,
        /// The URI of who holds it.
        by: String,
    },
    /// The store failed, or holds what cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Record(error.into())
    }
}

impl Engine {
    /// Commits to `store`, which `registry` follows.
    pub fn new(store: Store, registry: Registry, limits: Limits) -> Self {
        Self {
            store,
            registry,
            limits,
        }
    }

    /// A process of `host` takes, renews or logs to an operation.
    ///
    /// # Errors
    /// When it may not, or the store fails; then nothing happened.
    pub async fn propose(
        &self,
        id: OperationId,
        host: &HostName,
        proposal: super::state::Proposal,
        log: &str,
    ) -> Result<Lease, EngineError> {
        let record = self
            .change(id, Some(host), Event::Proposed(proposal), |record, now| {
                if !log.is_empty() {
                    record.logs.push(now, sentences::line(log));
                }
            })
            .await?;
        record.lease().cloned().ok_or(EngineError::Illegal {
            id,
            source: IllegalTransition::NotNow,
        })
    }

    /// Somebody wants the operation to stop; `by` says who and why. Repeating it changes nothing.
    ///
    /// # Errors
    /// When it cannot be stopped any more, or the store fails; then nothing happened.
    pub async fn cancel(&self, id: OperationId, by: &str) -> Result<OperationRecord, EngineError> {
        let by = sentences::line(by);
        let event = Event::CancelRequested { by: by.clone() };
        self.apply(id, None, event, |record| {
            match (record.operator(), record.end()) {
                (Operator::Client, _) => format!("unlocked by {by}"),
                (Operator::Agent, Some(_)) => format!("cancelled by {by}; it had not begun"),
                (Operator::Agent, None) => format!("cancel asked for by {by}"),
            }
        })
        .await
    }

    /// Applies any other event. `message` is what is said of it, given the record after it.
    ///
    /// # Errors
    /// When it cannot happen, or the store fails; then nothing happened.
    pub async fn apply(
        &self,
        id: OperationId,
        from: Option<&HostName>,
        event: Event,
        message: impl Fn(&OperationRecord) -> String,
    ) -> Result<OperationRecord, EngineError> {
        self.change(id, from, event, |record, now| {
            let line = message(record);
            record.logs.push(now, line);
        })
        .await
    }

    /// Remembers that the lease of a client's lock has run for so long. Nothing is said of it.
    ///
    /// # Errors
    /// When it was renewed or ended meanwhile, or the store fails; then nothing happened.
    pub async fn remember_ran(
        &self,
        id: OperationId,
        judged: Lease,
        ran_ms: u64,
    ) -> Result<OperationRecord, EngineError> {
        self.change(id, None, Event::LeaseRan { judged, ran_ms }, |_, _| ())
            .await
    }

    /// Applies `event`; `tell` then says what there is to say in the record after it.
    pub(super) async fn change(
        &self,
        id: OperationId,
        from: Option<&HostName>,
        event: Event,
        tell: impl Fn(&mut OperationRecord, UnixMillis),
    ) -> Result<OperationRecord, EngineError> {
        match self.try_change(Source::Registry, id, from, &event, &tell).await {
            Ok(Some(record)) => return Ok(record),
            // A commit that failed is not tried again.
            Err(error @ EngineError::Record(_)) => return Err(error),
            Ok(None) | Err(_) => {}
        }
        loop {
            let outcome = self.try_change(Source::Store, id, from, &event, &tell).await;
            if let Err(EngineError::ForeignHost { host: owner, .. }) = &outcome {
                let sender = from.map_or("", HostName::as_str);
                tracing::warn!(operation = %id, %owner, sender, "refused: foreign host");
            }
            if let Some(record) = outcome? {
                return Ok(record);
            }
        }
    }

    /// Decides once, by what `source` says. None when it does not know, or something changed meanwhile.
    async fn try_change(
        &self,
        source: Source,
        id: OperationId,
        from: Option<&HostName>,
        event: &Event,
        tell: &impl Fn(&mut OperationRecord, UnixMillis),
    ) -> Result<Option<OperationRecord>, EngineError> {
        let Some((record, lock)) = self.with_lock(source, id).await? else {
            return Ok(None);
        };
        let Held {
            value: mut record,
            modified,
        } = record;
        if from.is_some_and(|host| *host != record.host) {
            return Err(EngineError::ForeignHost {
                id,
                host: record.host,
            });
        }
        // Its token is known to whoever may look, so it alone must not let anybody act for the holder.
        if from.is_some() && record.operator() == Operator::Client {
            return Err(EngineError::NotForAgents {
                id,
                by: record.requested_by,
            });
        }
        let Held {
            value: mut lock,
            modified: lock_modified,
        } = lock;
        if matches!(event, Event::Proposed(_)) && record.end().is_none() && lock.turn() != Some(id) {
            return Err(EngineError::NotItsTurn {
                id,
                resource: record.resource,
            });
        }
        let (life, effects) = next(
            self.limits,
            record.operator(),
            lock.fence,
            &record.life,
            event.clone(),
        )
        .map_err(|source| EngineError::Illegal { id, source })?;
        let repeated = |effect: &Effect| matches!(effect, Effect::RecordCancel(_)) && record.cancel.is_some();
        if effects.iter().any(repeated) {
            // Nothing is committed, so that only the store may say so.
            return Ok((source == Source::Store).then_some(record));
        }
        let now = UnixMillis::now();
        record.life = life;
        if record.end().is_some() && record.ended_at.is_none() {
            record.ended_at = Some(now);
        }
        if let Phase::Active(lease) = &record.life.phase {
            record.fence = lease.fence;
        }
        tell(&mut record, now);
        let mut transaction = Transaction::default();
        let lock_before = lock.clone();
        for effect in effects {
            match effect {
                Effect::RaiseFence(fence) => lock.fence = fence,
                Effect::Release => lock.leave(id),
                Effect::EndHold => lock.attention = None,
                Effect::RecordCancel(by) => record.cancel = Some(by),
                Effect::HoldForAttention => {
                    lock.leave(id);
                    lock.attention = Some(id);
                    self.bar_queue(&mut lock, id, &mut transaction).await?;
                }
            }
        }
        let key = Lock::key(&record.resource);
        // The lock first: who hears of the end finds the resource free.
        if lock == lock_before {
            transaction.compares.push(Compare {
                key,
                modified: lock_modified,
            });
        } else {
            put(&mut transaction, key, &lock, lock_modified);
        }
        put(&mut transaction, OperationRecord::key(id), &record, modified);
        let (before, after) = failpoint::around(event);
        before.pass();
        if !self.commit(transaction).await? {
            return Ok(None);
        }
        after.pass();
        Ok(Some(record))
    }

    /// What waits behind an operation that needs attention ends: nobody could say when it would begin.
    async fn bar_queue(
        &self,
        lock: &mut Lock,
        attention: OperationId,
        transaction: &mut Transaction,
    ) -> Result<(), EngineError> {
        for waiting in std::mem::take(&mut lock.queue) {
            let Held {
                value: mut record,
                modified,
            } = match self.operation(waiting).await {
                Err(EngineError::NoSuchOperation { .. }) => continue,
                found => found?,
            };
            // It has left the queue since that was read: the commit conflicts, and all of it is decided again.
            if record.end().is_some() {
                continue;
            }
            let (life, _) = next(
                self.limits,
                record.operator(),
                lock.fence,
                &record.life,
                Event::Barred,
            )
            .map_err(|source| EngineError::Illegal { id: waiting, source })?;
            let now = UnixMillis::now();
            record.life = life;
            record.ended_at = Some(now);
            record.logs.push(
                now,
                format!("not begun: {}", sentences::attention(&record.resource, attention)),
            );
            put(transaction, OperationRecord::key(waiting), &record, modified);
        }
        Ok(())
    }

    pub(super) async fn commit(&self, transaction: Transaction) -> Result<bool, EngineError> {
        Ok(matches!(self.store.commit(transaction).await?, Committed::At(_)))
    }
}

pub(super) fn put<T: Serialize>(transaction: &mut Transaction, key: String, value: &T, modified: Revision) {
    transaction.compares.push(Compare {
        key: key.clone(),
        modified,
    });
    transaction.writes.push(json::put(key, value));
}
