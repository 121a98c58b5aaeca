//! Sees every commit at the instant when it is durable, every end that an agent reports and every word that a client
//! reads, and checks what must hold at each of them.
//!
//! It takes no part: nothing that is simulated reads it, but a person's choice of what to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_common::id::{Fence, HostName, OperationId};
use hostler_common::operation::{OperationKind, Request};
use hostler_common::rpc::hostler::agent::v1::{Outcome, SessionRequest, session_request};
use hostler_common::rpc::operations::v1::OperationState;
use hostler_coordinator::operation::locks::Lock;
use hostler_coordinator::operation::record::OperationRecord;
use hostler_coordinator::operation::state::{End, Lease, Operator, Phase};
use hostler_coordinator::operation::{locks, record};
use hostler_coordinator::registry;
use hostler_coordinator::store::{Event, Write, json};
use prost_types::Any;
use tokio::time::Instant;

use super::host::Host;
use super::world::World;

/// Longer than a commit takes until its events are published.
const TOLD: Duration = Duration::from_secs(2);

/// Clones share it.
#[derive(Clone)]
pub(super) struct Witness {
    world: World,
    hosts: Arc<BTreeMap<HostName, Host>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    operations: BTreeMap<OperationId, Known>,
    locks: BTreeMap<String, Lock>,
    /// When each was stored first.
    hypervisors: BTreeMap<String, Instant>,
    finishes: BTreeMap<OperationId, Vec<Finished>>,
    acknowledged: BTreeMap<OperationId, Option<OperationState>>,
}

struct Known {
    record: OperationRecord,
    /// When its lease was last taken or renewed.
    renewed: Instant,
}

/// An end as an agent reported it.
struct Finished {
    fence: Fence,
    token: String,
    end: End,
}

impl Witness {
    /// Has seen nothing yet.
    pub(super) fn new(world: &World, hosts: &[Host]) -> Self {
        let hosts = hosts.iter().map(|host| (host.name.clone(), host.clone()));
        Self {
            world: world.clone(),
            hosts: Arc::new(hosts.collect()),
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These transactions are durable now.
    pub(super) fn committed(&self, events: &[Event]) {
        for event in events {
            let mut touched = BTreeSet::new();
            for write in &event.writes {
                match write {
                    Write::Put { key, value } => self.put(key, value, &mut touched),
                    Write::Delete { key } => self.world.note(format!("● delete {key}")),
                }
            }
            self.check_queues(&touched);
        }
    }

    fn put(&self, key: &str, value: &[u8], touched: &mut BTreeSet<String>) {
        let unreadable = |_| self.world.broke("invariant_what_is_stored_can_be_read", key);
        if key.starts_with(record::PREFIX) {
            if let Ok(record) = json::read_value::<OperationRecord>(key, value).map_err(unreadable) {
                touched.insert(record.resource.to_string());
                self.operation(record);
            }
        } else if let Some(resource) = key.strip_prefix(locks::PREFIX) {
            if let Ok(lock) = json::read_value::<Lock>(key, value).map_err(unreadable) {
                touched.insert(resource.to_owned());
                self.lock(resource, lock);
            }
        } else if let Some(id) = key.strip_prefix(registry::PREFIX) {
            self.world.note(format!("● hypervisor {id}"));
            self.seen()
                .hypervisors
                .entry(id.to_owned())
                .or_insert_with(Instant::now);
        }
    }

    fn lock(&self, resource: &str, lock: Lock) {
        let mut seen = self.seen();
        let before = seen
            .locks
            .insert(resource.to_owned(), lock.clone())
            .unwrap_or_default();
        self.world.note(format!(
            "● lock of {resource}: fence {} queue {:?} attention {:?}",
            lock.fence, lock.queue, lock.attention
        ));
        self.world
            .check("invariant_fences_only_grow", lock.fence >= before.fence, || {
                format!("{resource}: {} after {}", lock.fence, before.fence)
            });
    }

    fn operation(&self, record: OperationRecord) {
        let line = format!("{} on {} {:?}", record.id, record.resource, record.life);
        self.world
            .note(format!("● operation {line}: {}", record.logs.last()));
        let known = self.seen().operations.remove(&record.id);
        let limit = self.world.scenario().config.operations.max_attempts;
        self.world.check(
            "invariant_attempts_are_bounded",
            record.life.attempts <= limit,
            || line.clone(),
        );
        let mut renewed = Instant::now();
        if let Some(known) = known {
            self.check_change(&known, &record, &line);
            if let (Phase::Active(before), Phase::Active(after)) =
                (&known.record.life.phase, &record.life.phase)
                && before.renewals == after.renewals
                && before.fence == after.fence
            {
                renewed = known.renewed;
            }
        } else {
            self.world.count("operations");
        }
        self.seen()
            .operations
            .insert(record.id, Known { record, renewed });
    }

    fn check_change(&self, known: &Known, after: &OperationRecord, line: &str) {
        let before = &known.record;
        let grew = after.logs.count() >= before.logs.count();
        self.world
            .check("invariant_nothing_said_is_lost", grew, || line.to_owned());
        match (&before.life.phase, &after.life.phase) {
            (Phase::Ended(old), Phase::Ended(new)) => {
                let resolved = (*old, *new) == (End::NeedsAttention, End::Failed);
                self.world
                    .check("invariant_an_end_stays", old == new || resolved, || {
                        line.to_owned()
                    });
            }
            (Phase::Ended(_), _) => self.world.broke("invariant_an_end_stays", line),
            (Phase::Active(old), Phase::Active(new)) => {
                let same = old.token == new.token && old.fence == new.fence;
                self.world
                    .check("invariant_a_new_holder_has_a_new_fence", same, || line.to_owned());
            }
            (Phase::Scheduled, Phase::Active(lease)) => {
                let raised = lease.fence > before.fence;
                self.world
                    .check("invariant_a_new_holder_has_a_new_fence", raised, || {
                        line.to_owned()
                    });
            }
            (Phase::Active(lease), Phase::Scheduled) => self.check_expired(known, lease, line),
            (Phase::Active(lease), Phase::Ended(end)) => {
                if before.operator() == Operator::Agent && !self.was_reported(before.id, lease, *end) {
                    self.world.check(
                        "invariant_an_operation_ends_by_its_holders_word",
                        *end == End::NeedsAttention,
                        || line.to_owned(),
                    );
                    self.check_expired(known, lease, line);
                } else if before.operator() == Operator::Agent {
                    self.check_truth(before, *end, line);
                }
            }
            (Phase::Scheduled, _) => {}
        }
        if let Phase::Ended(end) = after.life.phase
            && before.end().is_none()
        {
            self.world.count(match (before.operator(), end) {
                (Operator::Client, _) => "locks of clients that ended",
                (Operator::Agent, End::Completed) => "operations that were completed",
                (Operator::Agent, End::Failed) if after.cancel.is_some() => "operations that were cancelled",
                (Operator::Agent, End::Failed) => "operations that failed",
                (Operator::Agent, End::NeedsAttention) => "operations that needed attention",
            });
        }
    }

    fn check_expired(&self, known: &Known, lease: &Lease, line: &str) {
        self.world.count("leases that ran out");
        let ran = known.renewed.elapsed();
        let lasts = Duration::from_secs(u64::from(lease.lock_for_seconds));
        self.world
            .check("invariant_no_lease_ends_early", ran >= lasts, || {
                format!("{line}, after {ran:?} of {lasts:?}")
            });
    }

    fn was_reported(&self, id: OperationId, lease: &Lease, end: End) -> bool {
        let seen = self.seen();
        let reported = seen.finishes.get(&id).into_iter().flatten();
        let same =
            |one: &Finished| one.fence == lease.fence && one.token == lease.token.as_str() && one.end == end;
        reported.into_iter().any(same)
    }

    /// What was reported of a hypervisor is what the host is.
    fn check_truth(&self, record: &OperationRecord, end: End, line: &str) {
        let Some(host) = self.hosts.get(&record.host) else {
            return;
        };
        let id = record.resource.as_str();
        let create = matches!(
            Request::of(&Any::from(&record.request)).map(|request| request.kind()),
            Ok(OperationKind::CreateHypervisor)
        );
        let (parts, before) = (host.parts(id), host.parts_before(id, record.id));
        match end {
            End::Completed => self.world.check(
                "invariant_completed_only_when_the_host_says_so",
                parts == Some([create; 3]),
                || format!("{line}: the host has {parts:?}"),
            ),
            End::Failed => self.world.check(
                "invariant_failed_means_undone",
                parts == before || before.is_none(),
                || format!("{line}: the host had {before:?} and has {parts:?}"),
            ),
            End::NeedsAttention => {}
        }
    }

    /// The queue of a resource and its unended operations are the same, at every commit.
    fn check_queues(&self, touched: &BTreeSet<String>) {
        let seen = self.seen();
        for resource in touched {
            let queue: BTreeSet<_> = match seen.locks.get(resource) {
                Some(lock) => lock.queue.iter().copied().collect(),
                None => BTreeSet::new(),
            };
            let of_resource = seen.operations.values().map(|known| &known.record);
            let unended: BTreeSet<_> = of_resource
                .filter(|record| record.resource.as_str() == resource && record.end().is_none())
                .map(|record| record.id)
                .collect();
            self.world.check(
                "invariant_a_queue_is_what_has_not_ended",
                queue == unended,
                || format!("{resource}: queue {queue:?}, unended {unended:?}"),
            );
        }
    }

    /// The coordinator gets a message of `host`.
    pub(super) fn hears(&self, _host: &HostName, message: &SessionRequest) {
        if let Some(session_request::Message::Finish(finish)) = &message.message
            && let Ok(id) = finish.operation_id.parse()
        {
            let end = match finish.outcome() {
                Outcome::Done => End::Completed,
                Outcome::Failed => End::Failed,
                Outcome::NeedsAttention | Outcome::Unspecified => End::NeedsAttention,
            };
            let finished = Finished {
                fence: Fence(finish.fence),
                token: finish.process_token.clone(),
                end,
            };
            self.seen().finishes.entry(id).or_default().push(finished);
        }
    }

    /// A client has read that `id` is accepted.
    pub(super) fn acknowledged(&self, id: OperationId) {
        let mut seen = self.seen();
        if seen.acknowledged.contains_key(&id) {
            return;
        }
        seen.acknowledged.insert(id, None);
        self.world.count("operations that a client was told of");
    }

    /// A client has read how `id` ended.
    pub(super) fn told_end(&self, id: OperationId, state: OperationState) {
        let before = self.seen().acknowledged.insert(id, Some(state)).flatten();
        self.world.check(
            "invariant_an_end_stays",
            before.is_none_or(|before| before == state),
            || format!("a client was told that {id} is {state:?} after {before:?}"),
        );
    }

    /// What clients were told of `id` is what the record says, now and for ever.
    pub(super) fn check_told(&self) {
        let seen = self.seen();
        for (id, told) in &seen.acknowledged {
            let record = seen.operations.get(id).map(|known| &known.record);
            self.world
                .check("invariant_nothing_acknowledged_is_lost", record.is_some(), || {
                    id.to_string()
                });
            let state = record.map(OperationRecord::state);
            self.world
                .check("invariant_an_end_stays", told.is_none() || *told == state, || {
                    format!("a client was told that {id} is {told:?}, and it is {state:?}")
                });
        }
    }

    /// Operations that have not ended, with their resource.
    pub(super) fn unended(&self) -> Vec<(OperationId, String)> {
        let seen = self.seen();
        let records = seen.operations.values().map(|known| &known.record);
        let unended = records.filter(|record| record.end().is_none());
        unended
            .map(|record| (record.id, record.resource.to_string()))
            .collect()
    }

    /// Operations that need attention, with their host and resource.
    pub(super) fn attention(&self) -> Vec<(OperationId, HostName, String)> {
        let seen = self.seen();
        let records = seen.operations.values().map(|known| &known.record);
        let waiting = records.filter(|record| record.end() == Some(End::NeedsAttention));
        waiting
            .map(|record| (record.id, record.host.clone(), record.resource.to_string()))
            .collect()
    }

    /// Every operation.
    pub(super) fn operations(&self) -> Vec<OperationId> {
        self.seen().operations.keys().copied().collect()
    }

    /// Hypervisors that are enrolled, and have been for long enough that whoever reported them was told.
    pub(super) fn enrolled(&self) -> BTreeSet<String> {
        let seen = self.seen();
        let told = seen.hypervisors.iter().filter(|(_, at)| at.elapsed() > TOLD);
        told.map(|(id, _)| id.clone()).collect()
    }

    /// The host of a hypervisor, as it really is.
    pub(super) fn host_of(&self, id: &str) -> Option<&Host> {
        self.hosts.values().find(|host| host.parts(id).is_some())
    }

    /// A host as it really is.
    pub(super) fn host(&self, name: &HostName) -> Option<&Host> {
        self.hosts.get(name)
    }
}
