//! Takes an agent's report into the fleet. A hypervisor or a storage pool is enrolled the first time that its agent
//! reports it, and belongs to that host from then on; another host that claims its name is refused.
//!
//! The store is written only when something that is stored has changed. Invariant: a hypervisor and a pool never share
//! a name, since by it operations lock them. Each enrolment compares that neither is there, in its own transaction.

mod bounds;
mod hypervisors;
mod pools;

use std::collections::HashSet;

use hostler_common::id::{HostName, HypervisorId, PoolName, ResourceName};
use hostler_common::rpc::hostler::agent::v1 as agent;
use serde::Serialize;

use crate::failpoint::Point;
use crate::registry::{HypervisorRecord, PoolRecord, Registry, Reported};
use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Entry, Revision, Store, Transaction};

/// What became of a report.
#[derive(Debug, Default)]
pub struct Accepted {
    /// What the host may speak for. All of it is stored.
    pub reported: Reported,
    /// What was refused, with the reasons.
    pub refused: agent::ReportAnswer,
}

/// What becomes of one claim.
enum Decision<T> {
    Refuse(String),
    Keep,
    Store(Box<T>),
}

/// Stores what changed of `report`, which came from `host`'s own session, and waits until the registry shows it.
///
/// # Errors
/// When the store fails; then nothing was taken.
pub async fn accept(
    store: &Store,
    registry: &Registry,
    host: &HostName,
    report: agent::HostReport,
) -> Result<Accepted, RecordError> {
    let mut refused = agent::ReportAnswer::default();
    let mut claims = Claims {
        hypervisors: hypervisors::check(report.hypervisors, &mut refused.refused),
        pools: pools::check(registry, report.pools, &mut refused.refused_pools),
    };
    hypervisors::refuse_beyond_bound(registry, host, &mut claims.hypervisors, &mut refused.refused);
    pools::refuse_beyond_bound(registry, host, &mut claims.pools, &mut refused.refused_pools);
    if claims.are_settled(registry, host) {
        let reported = claims.reported();
        return Ok(Accepted { reported, refused });
    }
    loop {
        let mut round = Round {
            host,
            transaction: Transaction::default(),
            enrolled: HashSet::new(),
            accepted: Accepted {
                refused: refused.clone(),
                ..Accepted::default()
            },
        };
        let entries = store.get_many(claims.keys()).await?;
        let (of_hypervisors, of_pools) = entries.split_at(claims.hypervisors.len() * 2);
        for (claim, entries) in claims.hypervisors.iter().zip(of_hypervisors.chunks(2)) {
            round.take_hypervisor(claim, entries)?;
        }
        for (claim, entries) in claims.pools.iter().zip(of_pools.chunks(2)) {
            round.take_pool(claim, entries)?;
        }
        if round.transaction.writes.is_empty() {
            // What was read may be newer than what the registry shows.
            let newest = entries.iter().flatten().map(|entry| entry.modified).max();
            registry.taken(newest.unwrap_or(Revision(0))).await;
            return Ok(round.accepted);
        }
        Point::EnrollBefore.pass();
        if let Committed::At(revision) = store.commit(round.transaction).await? {
            Point::EnrollAfter.pass();
            for resource in round.enrolled {
                tracing::info!(%resource, %host, "enrolled");
            }
            registry.taken(revision).await;
            return Ok(round.accepted);
        }
    }
}

/// What is well-formed of a report.
struct Claims {
    hypervisors: Vec<hypervisors::Claim>,
    pools: Vec<pools::Claim>,
}

impl Claims {
    /// Only this host's session writes these records, and it waited for the registry: mostly nothing is new.
    fn are_settled(&self, registry: &Registry, host: &HostName) -> bool {
        let settled = |claim: &hypervisors::Claim| {
            let stored = registry.record(&claim.id);
            matches!(hypervisors::decide(host, claim, stored.as_ref()), Decision::Keep)
        };
        let settled_pool = |claim: &pools::Claim| {
            let stored = registry.pool_record(&claim.name);
            matches!(pools::decide(host, claim, stored.as_ref()), Decision::Keep)
        };
        self.hypervisors.iter().all(settled) && self.pools.iter().all(settled_pool)
    }

    fn reported(self) -> Reported {
        let hypervisors = self.hypervisors.into_iter();
        let pools = self.pools.into_iter();
        Reported {
            hypervisors: hypervisors.map(|claim| (claim.id, claim.domains)).collect(),
            pools: pools.map(|claim| (claim.name, claim.report)).collect(),
        }
    }

    /// Of each claim its own key, then the key of what could have its name besides.
    fn keys(&self) -> Vec<String> {
        let hypervisors = self.hypervisors.iter().flat_map(|claim| {
            [
                HypervisorRecord::key(&claim.id),
                PoolRecord::key(&pool_of(&claim.id)),
            ]
        });
        let pools = self.pools.iter().flat_map(|claim| {
            let hypervisor = hypervisor_of(&claim.name);
            [PoolRecord::key(&claim.name), HypervisorRecord::key(&hypervisor)]
        });
        hypervisors.chain(pools).collect()
    }
}

/// One try to store a report.
struct Round<'a> {
    host: &'a HostName,
    transaction: Transaction,
    enrolled: HashSet<ResourceName>,
    accepted: Accepted,
}

impl Round<'_> {
    /// `entries` are the claim's two keys, as stored.
    fn take_hypervisor(
        &mut self,
        claim: &hypervisors::Claim,
        entries: &[Option<Entry>],
    ) -> Result<(), RecordError> {
        let [own, other] = entries else { return Ok(()) };
        let mut refuse = |reason| {
            let id = claim.id.to_string();
            self.accepted
                .refused
                .refused
                .push(agent::RefusedHypervisor { id, reason });
            Ok(())
        };
        let stored: Option<HypervisorRecord> = own.as_ref().map(json::read).transpose()?;
        if let (None, Some(pool)) = (&stored, other) {
            let pool: PoolRecord = json::read(pool)?;
            return refuse(format!(
                "the storage pool {} of host {} has this name, and a hypervisor and a pool cannot share one; give it another id",
                pool.name, pool.host
            ));
        }
        match hypervisors::decide(self.host, claim, stored.as_ref()) {
            Decision::Refuse(reason) => return refuse(reason),
            Decision::Keep => {}
            Decision::Store(record) => {
                let keys = (
                    HypervisorRecord::key(&claim.id),
                    PoolRecord::key(&pool_of(&claim.id)),
                );
                self.store((&claim.id).into(), keys, own.as_ref(), &record);
            }
        }
        let reported = &mut self.accepted.reported.hypervisors;
        reported.insert(claim.id.clone(), claim.domains.clone());
        Ok(())
    }

    /// `entries` are the claim's two keys, as stored.
    fn take_pool(&mut self, claim: &pools::Claim, entries: &[Option<Entry>]) -> Result<(), RecordError> {
        let [own, other] = entries else { return Ok(()) };
        let resource = ResourceName::from(&claim.name);
        let mut refuse = |reason| {
            let name = claim.name.to_string();
            self.accepted
                .refused
                .refused_pools
                .push(agent::RefusedPool { name, reason });
            Ok(())
        };
        let stored: Option<PoolRecord> = own.as_ref().map(json::read).transpose()?;
        let host = match (&stored, other) {
            (None, Some(other)) => Some(json::read::<HypervisorRecord>(other)?.host),
            (None, None) if self.enrolled.contains(&resource) => Some(self.host.clone()),
            (None, None) | (Some(_), _) => None,
        };
        if let Some(host) = host {
            return refuse(format!(
                "the hypervisor {} of host {host} has this name, and a hypervisor and a pool cannot share one; give the pool another name",
                claim.name
            ));
        }
        match pools::decide(self.host, claim, stored.as_ref()) {
            Decision::Refuse(reason) => return refuse(reason),
            Decision::Keep => {}
            Decision::Store(record) => {
                let keys = (
                    PoolRecord::key(&claim.name),
                    HypervisorRecord::key(&hypervisor_of(&claim.name)),
                );
                self.store(resource, keys, own.as_ref(), &record);
            }
        }
        let reported = &mut self.accepted.reported.pools;
        reported.insert(claim.name.clone(), claim.report.clone());
        Ok(())
    }

    /// Writes a record under the first key. When it is new, the second must be absent too.
    fn store<T: Serialize>(
        &mut self,
        resource: ResourceName,
        (key, other_key): (String, String),
        own: Option<&Entry>,
        record: &T,
    ) {
        let modified = own.map_or(Revision(0), |entry| entry.modified);
        if own.is_none() {
            self.enrolled.insert(resource);
            self.transaction.compares.push(Compare {
                key: other_key,
                modified: Revision(0),
            });
        }
        self.transaction.compares.push(Compare {
            key: key.clone(),
            modified,
        });
        self.transaction.writes.push(json::put(key, record));
    }
}

/// The pool that would have this name.
fn pool_of(id: &HypervisorId) -> PoolName {
    (&ResourceName::from(id)).into()
}

/// The hypervisor that would have this name.
fn hypervisor_of(name: &PoolName) -> HypervisorId {
    (&ResourceName::from(name)).into()
}
