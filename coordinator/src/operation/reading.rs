//! What a decision rests on: as the registry shows it, or as the store has it.
//!
//! The registry is in memory and nearly always as new as the store, so it is asked first. Invariant: it only shortens
//! the way to a commit, which compares every revision that was read. What ends without a commit (a refusal, attaching
//! to what runs) is decided by the store, since the registry may be behind.

use std::sync::Arc;

use hostler_common::id::{OperationId, ResourceName};

use super::engine::{Engine, EngineError};
use super::locks::Lock;
use super::record::OperationRecord;
use crate::store::json;
use crate::store::{Entry, Revision};

/// A stored value, and the revision that its next write compares with.
#[derive(Debug, Clone)]
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) modified: Revision,
}

/// Where is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// What has not ended, as last taken from the store.
    Registry,
    /// Everything, as it is now.
    Store,
}

impl Engine {
    /// One operation as stored.
    ///
    /// # Errors
    /// When it is not kept, or the store fails.
    pub async fn get(&self, id: OperationId) -> Result<OperationRecord, EngineError> {
        self.operation(id).await.map(|held| held.value)
    }

    /// The same, with the revision that wrote it last.
    ///
    /// # Errors
    /// When it is not kept, or the store fails.
    pub async fn get_at(&self, id: OperationId) -> Result<(OperationRecord, Revision), EngineError> {
        self.operation(id).await.map(|held| (held.value, held.modified))
    }

    pub(super) async fn operation(&self, id: OperationId) -> Result<Held<OperationRecord>, EngineError> {
        let entry = self.store.get(&OperationRecord::key(id)).await?;
        let entry = entry.ok_or(EngineError::NoSuchOperation { id })?;
        Ok(Held {
            value: json::read(&entry)?,
            modified: entry.modified,
        })
    }

    /// An operation and the lock of its resource. None when the source cannot tell.
    pub(super) async fn with_lock(
        &self,
        source: Source,
        id: OperationId,
    ) -> Result<Option<(Held<OperationRecord>, Held<Lock>)>, EngineError> {
        if source == Source::Registry {
            let known = self.registry.operation_with_lock(id);
            let own = |held: Held<Arc<OperationRecord>>| Held {
                value: OperationRecord::clone(&held.value),
                modified: held.modified,
            };
            return Ok(known.map(|(record, lock)| (own(record), lock)));
        }
        let record = self.operation(id).await?;
        let lock = self.store.get(&Lock::key(&record.value.resource)).await?;
        let lock = read_lock(&record.value.resource, lock)?;
        Ok(Some((record, lock)))
    }

    /// The locks of `resources`, in their order.
    pub(super) async fn locks<'a>(
        &self,
        source: Source,
        resources: impl Iterator<Item = &'a ResourceName> + Clone,
    ) -> Result<Vec<Held<Lock>>, EngineError> {
        if source == Source::Registry {
            return Ok(self.registry.locks(resources));
        }
        let entries = self
            .store
            .get_many(resources.clone().map(Lock::key).collect())
            .await?;
        resources
            .zip(entries)
            .map(|(resource, entry)| read_lock(resource, entry))
            .collect()
    }
}

/// The lock of `resource`; one that was never written is free.
pub(super) fn read_lock(resource: &ResourceName, entry: Option<Entry>) -> Result<Held<Lock>, EngineError> {
    debug_assert!(
        entry
            .as_ref()
            .is_none_or(|entry| entry.key == Lock::key(resource))
    );
    match entry {
        Some(entry) => Ok(Held {
            value: json::read(&entry)?,
            modified: entry.modified,
        }),
        None => Ok(Held::absent()),
    }
}

impl<T: Default> Held<T> {
    /// What was never written.
    pub(crate) fn absent() -> Self {
        Self {
            value: T::default(),
            modified: Revision(0),
        }
    }
}
