//! The only way off the list, by the word of a person: a hypervisor or a pool that is no more.
//!
//! Its lock stays in the store: should another one come with this name, its fences are above those that the host has
//! seen. Invariant: nothing goes while its agent reports it (`registry/leaving` decides who was first) or something on it
//! has not ended; what is compared when it is removed is what that was decided by.

use hostler_common::id::{HostName, HypervisorId, OperationId, PoolName, ResourceName};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::operation::locks::Lock;
use crate::operation::sentences;
use crate::registry::{HypervisorRecord, PoolRecord, Registry};
use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Entry, Revision, Store, StoreError, Transaction, Write};

/// Why it stays on the list.
#[derive(Debug, Error)]
pub enum ExpungeError {
    /// There is none.
    #[error("{what} {name} is not enrolled; `{look}` shows those that are")]
    Unknown {
        /// A hypervisor or a pool.
        what: &'static str,
        /// Its name.
        name: ResourceName,
        /// What shows them.
        look: &'static str,
    },
    /// It is there.
    #[error(
        "{what} {name} is reported by the agent of host {host}, which is connected: take it out of that agent's configuration, or stop the agent, then repeat this"
    )]
    Reported {
        /// A hypervisor or a pool.
        what: &'static str,
        /// Its name.
        name: ResourceName,
        /// Its host.
        host: HostName,
    },
    /// Something on it has not ended.
    #[error(
        "operation {operation} on {name} has not ended: wait for it, or `hostler operations cancel {operation}` (`hostler unlock {name}` when it is a lock); when host {host} is dead, `hostler agents lost {host}`"
    )]
    Unended {
        /// Its name.
        name: ResourceName,
        /// Its host.
        host: HostName,
        /// The operation.
        operation: OperationId,
    },
    /// Nobody knows what is true of it.
    #[error("{}", sentences::attention(name, *operation))]
    Attention {
        /// Its name.
        name: ResourceName,
        /// The operation.
        operation: OperationId,
    },
    /// The store failed, or holds what cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<StoreError> for ExpungeError {
    fn from(error: StoreError) -> Self {
        Self::Record(error.into())
    }
}

/// What goes.
struct Leaving {
    what: &'static str,
    name: ResourceName,
    key: String,
    look: &'static str,
}

/// Takes a hypervisor off the list. When it returns, the list is without it.
///
/// # Errors
/// When it may not go, or the store fails.
pub async fn hypervisor(store: &Store, registry: &Registry, id: &HypervisorId) -> Result<(), ExpungeError> {
    let leaving = Leaving {
        what: "hypervisor",
        name: id.into(),
        key: HypervisorRecord::key(id),
        look: "hostler hypervisors list",
    };
    let host = |record: HypervisorRecord| record.host;
    expunge(store, registry, &leaving, host).await
}

/// Takes a pool off the list; nothing happens to the pool. When it returns, the list is without it.
///
/// # Errors
/// When it may not go, or the store fails.
pub async fn pool(store: &Store, registry: &Registry, name: &PoolName) -> Result<(), ExpungeError> {
    let leaving = Leaving {
        what: "storage pool",
        name: name.into(),
        key: PoolRecord::key(name),
        look: "hostler storage list",
    };
    let host = |record: PoolRecord| record.host;
    expunge(store, registry, &leaving, host).await
}

async fn expunge<T: DeserializeOwned>(
    store: &Store,
    registry: &Registry,
    leaving: &Leaving,
    host: impl Fn(T) -> HostName,
) -> Result<(), ExpungeError> {
    let name = &leaving.name;
    let lock_key = Lock::key(name);
    loop {
        let mut entries = store
            .get_many(vec![leaving.key.clone(), lock_key.clone()])
            .await?
            .into_iter();
        let (record, lock) = (entries.next().flatten(), entries.next().flatten());
        let Some(record) = record else {
            return Err(ExpungeError::Unknown {
                what: leaving.what,
                name: name.clone(),
                look: leaving.look,
            });
        };
        let host = host(json::read(&record)?);
        // Until the list is without it, nobody's report of it counts.
        let Some(_leaving) = registry.leave(name) else {
            return Err(ExpungeError::Reported {
                what: leaving.what,
                name: name.clone(),
                host,
            });
        };
        refuse_unended(name, host, lock.as_ref())?;
        let modified = |entry: &Option<Entry>| entry.as_ref().map_or(Revision(0), |entry| entry.modified);
        let transaction = Transaction {
            compares: vec![
                Compare {
                    key: lock_key.clone(),
                    modified: modified(&lock),
                },
                Compare {
                    key: leaving.key.clone(),
                    modified: record.modified,
                },
            ],
            writes: vec![Write::Delete {
                key: leaving.key.clone(),
            }],
        };
        if let Committed::At(revision) = store.commit(transaction).await? {
            registry.taken(revision).await;
            return Ok(());
        }
    }
}

fn refuse_unended(name: &ResourceName, host: HostName, lock: Option<&Entry>) -> Result<(), ExpungeError> {
    let lock: Lock = lock.map(json::read).transpose()?.unwrap_or_default();
    let name = name.clone();
    match (lock.attention, lock.queue.first().copied()) {
        (Some(operation), _) => Err(ExpungeError::Attention { name, operation }),
        (None, Some(operation)) => Err(ExpungeError::Unended {
            name,
            host,
            operation,
        }),
        (None, None) => Ok(()),
    }
}
