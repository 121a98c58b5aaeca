//! Keeps the fleet in memory equal to the store: loads it once, then follows the store's transactions.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_common::error::Chain;
use hostler_common::id::{HypervisorId, PoolName, ResourceName};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::{Change, Fleet, Held, HypervisorRecord, POOLS_PREFIX, PREFIX, PoolRecord, Registry};
use crate::operation::locks::{self, Lock};
use crate::operation::record::{self, OperationRecord};
use crate::store::json::{self, RecordError};
use crate::store::{Order, Range, Revision, Store, Watch, Write};

/// Loads the fleet and starts following it in `tasks`. `default_pool` is the configured one.
///
/// # Errors
/// When the store cannot be read, or holds what this version cannot read: then nothing is served.
pub async fn spawn(
    store: Store,
    default_pool: Option<PoolName>,
    tasks: &mut JoinSet<()>,
) -> Result<Registry, RecordError> {
    let registry = Registry::new(default_pool);
    let watch = store.watch();
    load(&store, &registry).await?;
    tasks.spawn(follow(store, registry.clone(), watch));
    Ok(registry)
}

async fn load(store: &Store, registry: &Registry) -> Result<(), RecordError> {
    let all = |prefix: &str| Range {
        prefix: prefix.to_owned(),
        beyond: None,
        at_most: usize::MAX,
        order: Order::Ascending,
    };
    let (hypervisors, revision) = store.list(all(PREFIX)).await?;
    let (pools, _) = store.list(all(POOLS_PREFIX)).await?;
    let (lock_entries, _) = store.list(all(locks::PREFIX)).await?;
    let mut fleet = Fleet::default();
    for entry in &hypervisors {
        let value: HypervisorRecord = json::read(entry)?;
        let modified = entry.modified;
        fleet
            .hypervisors
            .insert(value.id.clone(), Held { value, modified });
    }
    for entry in &pools {
        let value: PoolRecord = json::read(entry)?;
        let modified = entry.modified;
        fleet.pools.insert(value.name.clone(), Held { value, modified });
    }
    for entry in &lock_entries {
        let Some(resource) = resource_of(&entry.key) else {
            continue;
        };
        let value: Lock = json::read(entry)?;
        let keys: Vec<_> = value.queue.iter().map(|id| OperationRecord::key(*id)).collect();
        for entry in store.get_many(keys).await?.into_iter().flatten() {
            let record: OperationRecord = json::read(&entry)?;
            // One may have ended since its lock was read; its event follows.
            if record.end().is_none() {
                let modified = entry.modified;
                fleet.operations.insert(
                    record.id,
                    Held {
                        value: Arc::new(record),
                        modified,
                    },
                );
            }
        }
        let modified = entry.modified;
        fleet.locks.insert(resource, Held { value, modified });
    }
    registry.write(|current| {
        fleet.hosts = std::mem::take(&mut current.hosts);
        fleet.leaving = std::mem::take(&mut current.leaving);
        *current = fleet;
    });
    registry.taken.send_replace(revision);
    Ok(())
}

async fn follow(store: Store, registry: Registry, mut watch: Watch) {
    loop {
        match watch.next().await {
            Ok(Some(event)) => {
                // Read first: who looks at the fleet is kept waiting only while it changes.
                let news: Vec<_> = event.writes.iter().filter_map(News::of).collect();
                // All of a transaction at once: nobody sees half of it.
                let taken = registry.write(|fleet| take(fleet, news, event.revision));
                registry.taken.send_replace(event.revision);
                for taken in taken {
                    registry.tell(match taken {
                        Taken::Hypervisor(id) => Change::Hypervisor(id),
                        Taken::Pool(name) => Change::Pool(name),
                        Taken::Queue(resource) => Change::Operation(resource),
                        Taken::Operation(record) => {
                            registry.followed.tell(&record);
                            Change::Operation(record.resource.clone())
                        }
                    });
                }
            }
            Ok(None) => return,
            Err(_lagged) => {
                tracing::warn!("the mirror of the store fell behind; reading it again");
                if let Err(error) = load(&store, &registry).await {
                    // The process ends with this task, and begins again with a clean load.
                    tracing::error!(error = %Chain(&error), "cannot read the store");
                    return;
                }
                registry.followed.tell_all_unknown();
                registry.tell(Change::Everything);
            }
        }
    }
}

/// What the mirror took from one write.
enum Taken {
    Hypervisor(HypervisorId),
    Pool(PoolName),
    /// Of a resource that is not enrolled.
    Queue(ResourceName),
    Operation(Arc<OperationRecord>),
}

/// A write as the fleet understands it. None stands for a key that was removed.
enum News {
    Hypervisor(HypervisorId, Option<HypervisorRecord>),
    Pool(PoolName, Option<PoolRecord>),
    Lock(ResourceName, Option<Lock>),
    Operation(Arc<OperationRecord>),
}

impl News {
    /// None for what is nothing of the fleet, or cannot be read.
    fn of(write: &Write) -> Option<Self> {
        let key = write.key();
        if let Some(id) = key.strip_prefix(PREFIX) {
            Some(Self::Hypervisor(id.parse().ok()?, value(write)?))
        } else if let Some(name) = key.strip_prefix(POOLS_PREFIX) {
            Some(Self::Pool(name.parse().ok()?, value(write)?))
        } else if let Some(resource) = resource_of(key) {
            Some(Self::Lock(resource, value(write)?))
        } else if key.starts_with(record::PREFIX) {
            // A removed one had ended before, and nobody follows it.
            Some(Self::Operation(Arc::new(value(write)??)))
        } else {
            None
        }
    }
}

fn take(fleet: &mut Fleet, news: Vec<News>, modified: Revision) -> Vec<Taken> {
    let one = |news| match news {
        News::Hypervisor(id, value) => {
            put(&mut fleet.hypervisors, &id, value, modified).then_some(Taken::Hypervisor(id))
        }
        News::Pool(name, value) => put(&mut fleet.pools, &name, value, modified).then_some(Taken::Pool(name)),
        News::Lock(resource, value) => {
            put(&mut fleet.locks, &resource, value, modified).then(|| holder(fleet, resource))
        }
        News::Operation(record) => {
            let unended = record.end().is_none().then(|| record.clone());
            put(&mut fleet.operations, &record.id, unended, modified).then_some(Taken::Operation(record))
        }
    };
    news.into_iter().filter_map(one).collect()
}

/// Puts `value` in its place, or takes away what is there. False when what is known is as new.
fn put<K: Ord + Clone, T>(
    all: &mut BTreeMap<K, Held<T>>,
    key: &K,
    value: Option<T>,
    modified: Revision,
) -> bool {
    if all.get(key).is_some_and(|held| held.modified >= modified) {
        return false;
    }
    match value {
        Some(value) => drop(all.insert(key.clone(), Held { value, modified })),
        None => drop(all.remove(key)),
    }
    true
}

/// What the lock of `resource` belongs to. A hypervisor and a pool never share a name.
fn holder(fleet: &Fleet, resource: ResourceName) -> Taken {
    let (id, name) = (HypervisorId::from(&resource), PoolName::from(&resource));
    if fleet.hypervisors.contains_key(&id) {
        Taken::Hypervisor(id)
    } else if fleet.pools.contains_key(&name) {
        Taken::Pool(name)
    } else {
        Taken::Queue(resource)
    }
}

/// The value of a write: outer None when it cannot be read.
fn value<T: DeserializeOwned>(write: &Write) -> Option<Option<T>> {
    let Write::Put { key, value } = write else {
        return Some(None);
    };
    match json::read_value(key, value) {
        Ok(value) => Some(Some(value)),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "a stored value is passed over");
            None
        }
    }
}

fn resource_of(key: &str) -> Option<ResourceName> {
    key.strip_prefix(locks::PREFIX)?.parse().ok()
}
