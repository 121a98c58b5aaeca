//! The fleet in memory: a mirror of what is stored, and what is only known while sessions live.
//!
//! Everything that a client sees of the fleet is read here, and every stream follows [`Registry::changes`],
//! which speaks only after the mirror has taken the change: who hears of an end finds the new state listed.
//! Invariant: an enrolled hypervisor or pool is always listed. A [`Registry`] exists only loaded, so a short list
//! cannot be served.

mod followed;
mod leaving;
mod live;
mod mirror;
mod pool_view;
mod pools;
mod record;
mod seen;
mod standing;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use hostler_common::id::{Epoch, Fence, HostName, HypervisorId, OperationId, PoolName, ResourceName};
use hostler_common::rpc::hostler::agent::v1::Measure;
use hostler_common::units::UnixMillis;
use tokio::sync::{broadcast, watch};

pub use self::followed::{Followed, Latest};
pub use self::leaving::{Leaving, Listing};
pub use self::live::{HostLive, Presence, Reported};
pub use self::mirror::spawn;
pub use self::pool_view::{Naming, PoolView};
pub use self::pools::NoDefaultPool;
pub use self::record::{
    HypervisorRecord, Kind, Observed, POOLS_PREFIX, PREFIX, PoolRecord, same_but_figures,
};
pub use self::seen::Seen;
pub use self::view::HypervisorView;
use crate::operation::locks::Lock;
use crate::operation::reading::Held;
use crate::operation::record::OperationRecord;
use crate::operation::state::{Operator, Phase};
use crate::store::Revision;

/// Changes that a follower may be behind before it has to read everything again. Each is a name.
const BEHIND_AT_MOST: usize = 2048;

/// Something about the fleet changed, and can be read already.
#[derive(Debug, Clone)]
pub enum Change {
    /// A hypervisor's record, lock or connection.
    Hypervisor(HypervisorId),
    /// A pool's record, lock, figures or connection.
    Pool(PoolName),
    /// An operation on this resource, or its queue.
    Operation(ResourceName),
    /// A host's session began or ended.
    Host(HostName),
    /// Changes were missed: read everything again.
    Everything,
}

/// A handle to the fleet in memory.
#[derive(Debug, Clone)]
pub struct Registry {
    fleet: Arc<RwLock<Fleet>>,
    changes: broadcast::Sender<Change>,
    followed: followed::Slots,
    /// The newest revision that the mirror has taken.
    taken: Arc<watch::Sender<Revision>>,
    /// As configured.
    default_pool: Arc<Option<PoolName>>,
}

#[derive(Debug, Default)]
struct Fleet {
    hypervisors: BTreeMap<HypervisorId, Held<HypervisorRecord>>,
    pools: BTreeMap<PoolName, Held<PoolRecord>>,
    /// Ordered, as the operations: the same history is told of in the same order.
    locks: BTreeMap<ResourceName, Held<Lock>>,
    /// Those that have not ended.
    operations: BTreeMap<OperationId, Held<Arc<OperationRecord>>>,
    hosts: HashMap<HostName, HostLive>,
    /// What people take off the list at this moment, once for each of them.
    leaving: Vec<ResourceName>,
}

impl Fleet {
    /// One that was never written is free.
    fn lock(&self, resource: &ResourceName) -> Held<Lock> {
        self.locks.get(resource).cloned().unwrap_or_else(Held::absent)
    }
}

impl Registry {
    fn new(default_pool: Option<PoolName>) -> Self {
        Self {
            fleet: Arc::default(),
            changes: broadcast::channel(BEHIND_AT_MOST).0,
            followed: followed::Slots::default(),
            taken: Arc::new(watch::Sender::new(Revision(0))),
            default_pool: Arc::new(default_pool),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Fleet) -> T) -> T {
        read(&self.fleet.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Fleet) -> T) -> T {
        write(&mut self.fleet.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, change: Change) {
        // An error means that nobody follows.
        let _ = self.changes.send(change);
    }

    /// Every change from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Follows one operation, from the next change on.
    pub fn follow(&self, id: OperationId) -> Followed {
        self.followed.follow(id)
    }

    /// Waits until the mirror has taken `revision`: what was read from the store at it can be told then.
    pub async fn taken(&self, revision: Revision) {
        // The sender lives in this registry.
        let _ = self.taken.subscribe().wait_for(|taken| *taken >= revision).await;
    }

    /// One hypervisor as stored.
    pub fn record(&self, id: &HypervisorId) -> Option<HypervisorRecord> {
        self.read(|fleet| fleet.hypervisors.get(id).map(|held| held.value.clone()))
    }

    /// How many hypervisors are enrolled under `host`.
    pub fn count_of(&self, host: &HostName) -> usize {
        self.read(|fleet| {
            fleet
                .hypervisors
                .values()
                .filter(|held| held.value.host == *host)
                .count()
        })
    }

    /// Reads one hypervisor as clients see it.
    pub fn hypervisor<T>(&self, id: &HypervisorId, read: impl FnOnce(&HypervisorView<'_>) -> T) -> Option<T> {
        self.read(|fleet| {
            let held = fleet.hypervisors.get(id)?;
            Some(read(&HypervisorView::of(fleet, &held.value)))
        })
    }

    /// Reads the hypervisor with the smallest id beyond `after`: for walks that hold nothing of the fleet.
    pub fn hypervisor_after<T>(
        &self,
        after: Option<&HypervisorId>,
        read: impl FnOnce(&HypervisorView<'_>) -> T,
    ) -> Option<T> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.read(|fleet| {
            let begin = after.map_or(Unbounded, Excluded);
            let (_, held) = fleet.hypervisors.range((begin, Unbounded)).next()?;
            Some(read(&HypervisorView::of(fleet, &held.value)))
        })
    }

    /// Maps every hypervisor, ordered by id.
    pub fn map_hypervisors<T>(&self, map: impl Fn(&HypervisorView<'_>) -> T) -> Vec<T> {
        self.read(|fleet| {
            let all = fleet.hypervisors.values();
            all.map(|held| map(&HypervisorView::of(fleet, &held.value)))
                .collect()
        })
    }

    /// An operation that has not ended.
    pub fn operation(&self, id: OperationId) -> Option<Arc<OperationRecord>> {
        self.read(|fleet| fleet.operations.get(&id).map(|held| held.value.clone()))
    }

    /// An operation that has not ended, and the lock of its resource, at one instant.
    pub(crate) fn operation_with_lock(
        &self,
        id: OperationId,
    ) -> Option<(Held<Arc<OperationRecord>>, Held<Lock>)> {
        self.read(|fleet| {
            let record = fleet.operations.get(&id)?.clone();
            let lock = fleet.lock(&record.value.resource);
            Some((record, lock))
        })
    }

    /// The locks of `resources`, in their order, at one instant.
    pub(crate) fn locks<'a>(&self, resources: impl Iterator<Item = &'a ResourceName>) -> Vec<Held<Lock>> {
        self.read(|fleet| resources.map(|resource| fleet.lock(resource)).collect())
    }

    /// Operations that have not ended, newest first.
    pub fn operations(&self) -> Vec<Arc<OperationRecord>> {
        let mut all: Vec<_> =
            self.read(|fleet| fleet.operations.values().map(|held| held.value.clone()).collect());
        all.sort_by_key(|record: &Arc<OperationRecord>| std::cmp::Reverse(record.id));
        all
    }

    /// The operation whose turn it is on each resource.
    pub fn turns(&self) -> Vec<Arc<OperationRecord>> {
        self.read(|fleet| {
            let turns = fleet.locks.values().filter_map(|held| held.value.turn());
            turns
                .filter_map(|id| fleet.operations.get(&id).map(|held| held.value.clone()))
                .collect()
        })
    }

    /// The operation whose turn it is on `resource`, and the resource's lock.
    pub fn turn(&self, resource: &ResourceName) -> Option<(Arc<OperationRecord>, Lock)> {
        self.read(|fleet| {
            let lock = &fleet.locks.get(resource)?.value;
            let operation = fleet.operations.get(&lock.turn()?)?;
            Some((operation.value.clone(), lock.clone()))
        })
    }

    /// A host's session began. Nothing happens when a newer one has begun: tasks may come out of order.
    pub fn connected(&self, host: &HostName, epoch: Epoch, agent_version: &str) {
        let begun = self.write(|fleet| {
            if fleet.hosts.get(host).is_some_and(|live| live.epoch() > epoch) {
                return false;
            }
            let before = fleet.hosts.remove(host);
            let live = HostLive::connected(epoch, agent_version, before);
            fleet.hosts.insert(host.clone(), live);
            true
        });
        if begun {
            self.tell(Change::Host(host.clone()));
            self.tell_hypervisors_of(host);
            self.tell_pools_of(host);
        }
    }

    /// A host's session ended. Nothing happens when a newer one has begun.
    pub fn disconnected(&self, host: &HostName, epoch: Epoch) {
        let ended = self.write(|fleet| match fleet.hosts.get_mut(host) {
            Some(live) if live.is_connected_as(epoch) => {
                live.disconnect();
                true
            }
            _ => false,
        });
        if ended {
            self.tell(Change::Host(host.clone()));
            self.tell_hypervisors_of(host);
            self.tell_pools_of(host);
        }
    }

    /// Something came from a host.
    pub fn heard(&self, host: &HostName) {
        self.write(|fleet| {
            if let Some(live) = fleet.hosts.get_mut(host) {
                live.heard();
            }
        });
    }

    /// `host` says how far an operation is. It counts only while `host` holds it under `fence`, and only who follows
    /// the operation hears of it.
    pub fn measured(&self, host: &HostName, id: OperationId, fence: Fence, measure: Measure) {
        let holds = self.operation(id).is_some_and(|record| {
            let held = matches!(&record.life.phase, Phase::Active(lease) if lease.fence == fence);
            held && record.host == *host && record.operator() == Operator::Agent
        });
        if holds {
            self.followed.tell_measure(id, measure);
        }
    }

    /// Whether `host` has a session.
    pub fn presence(&self, host: &HostName) -> Presence {
        self.read(|fleet| {
            fleet
                .hosts
                .get(host)
                .map_or(Presence::NeverSeen, HostLive::presence)
        })
    }

    /// When something last came from `host`.
    pub fn last_heard(&self, host: &HostName) -> Option<UnixMillis> {
        self.read(|fleet| fleet.hosts.get(host).map(HostLive::last_heard))
    }

    fn tell_hypervisors_of(&self, host: &HostName) {
        let ids: Vec<_> = self.read(|fleet| {
            let of_host = fleet.hypervisors.values().filter(|held| held.value.host == *host);
            of_host.map(|held| held.value.id.clone()).collect()
        });
        for id in ids {
            self.tell(Change::Hypervisor(id));
        }
    }

    fn tell_pools_of(&self, host: &HostName) {
        for name in self.pools_of(host) {
            self.tell(Change::Pool(name));
        }
    }
}
