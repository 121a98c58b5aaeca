//! Keeps the fleet in memory equal to the store: loads it once, then follows the store's events.

use std::sync::Arc;

use hostler_common::id::{HypervisorId, OperationId, ResourceName};
use tokio::task::JoinSet;

use super::{Change, Fleet, Held, HypervisorRecord, PREFIX, Registry};
use crate::operation::engine::{EngineError, parse};
use crate::operation::locks::{self, Lock};
use crate::operation::record::{self, OperationRecord};
use crate::store::{Entry, Event, Order, Range, Store, Watch};

/// Loads the fleet and starts following it in `tasks`. The task ends when the store is closed.
///
/// # Errors
/// When the store cannot be read, or holds what this version cannot read: then nothing is served.
pub async fn spawn(store: Store, tasks: &mut JoinSet<()>) -> Result<Registry, EngineError> {
    let registry = Registry::new();
    let watch = store.watch("/");
    load(&store, &registry).await?;
    tasks.spawn(follow(store, registry.clone(), watch));
    Ok(registry)
}

async fn load(store: &Store, registry: &Registry) -> Result<(), EngineError> {
    let all = |prefix: &str| Range {
        prefix: prefix.to_owned(),
        beyond: None,
        at_most: usize::MAX,
        order: Order::Ascending,
    };
    let (hypervisors, revision) = store.list(all(PREFIX)).await?;
    let (lock_entries, _) = store.list(all(locks::PREFIX)).await?;
    let mut fleet = Fleet::default();
    for entry in &hypervisors {
        let value: HypervisorRecord = parse(entry)?;
        fleet.hypervisors.insert(
            value.id.clone(),
            Held {
                value,
                modified: entry.modified,
            },
        );
    }
    for entry in &lock_entries {
        let Some(resource) = resource_of(&entry.key) else {
            continue;
        };
        let value: Lock = parse(entry)?;
        let keys: Vec<_> = value.queue.iter().map(|id| OperationRecord::key(*id)).collect();
        for entry in store.get_many(keys).await?.into_iter().flatten() {
            let record: OperationRecord = parse(&entry)?;
            let held = Held {
                value: Arc::new(record),
                modified: entry.modified,
            };
            fleet.operations.insert(held.value.id, held);
        }
        fleet.locks.insert(
            resource,
            Held {
                value,
                modified: entry.modified,
            },
        );
    }
    registry.write(|current| {
        fleet.hosts = std::mem::take(&mut current.hosts);
        *current = fleet;
    });
    registry.taken.send_replace(revision);
    Ok(())
}

async fn follow(store: Store, registry: Registry, mut watch: Watch) {
    loop {
        match watch.next().await {
            Ok(Some(event)) => {
                if let Some(change) = registry.write(|fleet| apply(fleet, &event)) {
                    registry.tell(change);
                }
                registry.taken.send_if_modified(|taken| {
                    let newer = event.revision > *taken;
                    *taken = event.revision.max(*taken);
                    newer
                });
            }
            Ok(None) => return,
            Err(_lagged) => {
                tracing::warn!("the mirror of the store fell behind; reading it again");
                if let Err(error) = load(&store, &registry).await {
                    // The process ends with this task, and begins again with a clean load.
                    tracing::error!(error = %hostler_common::error::Chain(&error), "cannot read the store");
                    return;
                }
                registry.tell(Change::Everything);
            }
        }
    }
}

/// Takes one event, unless what is known is as new.
fn apply(fleet: &mut Fleet, event: &Event) -> Option<Change> {
    let modified = event.revision;
    if let Some(id) = event.key.strip_prefix(PREFIX) {
        let id: HypervisorId = id.parse().ok()?;
        if fleet
            .hypervisors
            .get(&id)
            .is_some_and(|held| held.modified >= modified)
        {
            return None;
        }
        match decode(event)? {
            Some(value) => drop(fleet.hypervisors.insert(id.clone(), Held { value, modified })),
            None => drop(fleet.hypervisors.remove(&id)),
        }
        return Some(Change::Hypervisor(id));
    }
    if let Some(resource) = resource_of(&event.key) {
        if fleet
            .locks
            .get(&resource)
            .is_some_and(|held| held.modified >= modified)
        {
            return None;
        }
        match decode(event)? {
            Some(value) => drop(fleet.locks.insert(resource.clone(), Held { value, modified })),
            None => drop(fleet.locks.remove(&resource)),
        }
        return Some(Change::Hypervisor(HypervisorId::from(&resource)));
    }
    if let Some(id) = event.key.strip_prefix(record::PREFIX) {
        let id: OperationId = id.parse().ok()?;
        if fleet
            .operations
            .get(&id)
            .is_some_and(|held| held.modified >= modified)
        {
            return None;
        }
        // A removed one had ended before, and nobody follows it.
        let value: Arc<OperationRecord> = Arc::new(decode(event)??);
        match value.end() {
            None => drop(fleet.operations.insert(
                id,
                Held {
                    value: value.clone(),
                    modified,
                },
            )),
            Some(_) => drop(fleet.operations.remove(&id)),
        }
        return Some(Change::Operation(value));
    }
    None
}

/// The value of an event: outer None when it cannot be read.
fn decode<T: serde::de::DeserializeOwned>(event: &Event) -> Option<Option<T>> {
    let Some(value) = &event.value else {
        return Some(None);
    };
    let entry = Entry {
        key: event.key.clone(),
        value: value.clone(),
        modified: event.revision,
    };
    match parse(&entry) {
        Ok(value) => Some(Some(value)),
        Err(error) => {
            tracing::error!(error = %hostler_common::error::Chain(&error), "a stored value is passed over");
            None
        }
    }
}

fn resource_of(key: &str) -> Option<ResourceName> {
    key.strip_prefix(locks::PREFIX)?.parse().ok()
}
