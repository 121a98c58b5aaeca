//! Time's part in operations: leases that are not renewed, hosts that stay away. Counted on the monotonic
//! clock, from when this process first saw it: a step of the wall clock frees nothing, and a restart gives
//! every holder its whole lease again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostler_common::error::Chain;
use hostler_common::id::OperationId;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::operation::engine::{Engine, EngineError};
use crate::operation::record::OperationRecord;
use crate::operation::sentences::ending;
use crate::operation::state::{Event, Lease, Phase};
use crate::registry::{Presence, Registry};

/// How exact the deadlines are.
const TICK: Duration = Duration::from_millis(250);

/// How long operations wait for hosts that have no session.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For an operation that no agent has taken yet.
    pub unbegun: Duration,
    /// For one that an agent has begun: something may be left on the host.
    pub begun: Duration,
    /// For an agent that has a session and does not take what it is offered.
    pub untaken: Duration,
}

/// Starts the watch over deadlines in `tasks`.
pub fn spawn(registry: Registry, engine: Engine, patience: Patience, tasks: &mut JoinSet<()>) {
    let liveness = Liveness {
        registry,
        engine,
        patience,
        leases: HashMap::new(),
        waits: HashMap::new(),
    };
    tasks.spawn(liveness.run());
}

struct Liveness {
    registry: Registry,
    engine: Engine,
    patience: Patience,
    /// Each held lease as last seen, and since when.
    leases: HashMap<OperationId, (Lease, Instant)>,
    /// Each scheduled operation whose turn it is.
    waits: HashMap<OperationId, Wait>,
}

/// How long an operation waits.
#[derive(Debug)]
struct Wait {
    waits_for: WaitsFor,
    /// For that.
    since: Instant,
    /// At all: a host that comes and goes is not waited for without end.
    first: Instant,
}

/// What a scheduled operation waits for when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// A session of its host.
    Host,
    /// The agent, which has a session.
    Taker,
}

impl Liveness {
    async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let turns = self.registry.turns();
            let is_active = |record: &OperationRecord| matches!(record.life.phase, Phase::Active(_));
            let (active, scheduled): (Vec<_>, Vec<_>) =
                turns.into_iter().partition(|record| is_active(record));
            forget_others(&mut self.leases, &active);
            forget_others(&mut self.waits, &scheduled);
            for record in &active {
                if let Phase::Active(lease) = &record.life.phase {
                    self.judge_lease(record, lease).await;
                }
            }
            for record in &scheduled {
                self.judge_wait(record).await;
            }
        }
    }

    async fn judge_lease(&mut self, record: &OperationRecord, lease: &Lease) {
        let now = Instant::now();
        let (seen, since) = self
            .leases
            .entry(record.id)
            .or_insert_with(|| (lease.clone(), now));
        if seen != lease {
            (*seen, *since) = (lease.clone(), now);
        }
        if since.elapsed() <= Duration::from_secs(u64::from(lease.lock_for_seconds)) {
            return;
        }
        let host = &record.host;
        let seconds = lease.lock_for_seconds;
        let outcome = self
            .engine
            .apply(record.id, None, Event::LeaseExpired(lease.clone()), |after| match after.end() {
                None => format!(
                    "the agent of {host} has not renewed its lease of {seconds} s; waiting for it to take the operation again"
                ),
                Some(_) => ending(
                    after,
                    &format!(
                        "given up: the agent of {host} took it {} times and never finished",
                        after.life.attempts
                    ),
                ),
            })
            .await;
        report(record, "lease expired", outcome);
        // When it could not be stored, it is tried again after another lease, not at every tick.
        self.leases.remove(&record.id);
    }

    async fn judge_wait(&mut self, record: &OperationRecord) {
        let host = &record.host;
        let waits_for = match self.registry.presence(host) {
            Presence::Connected => WaitsFor::Taker,
            Presence::NeverSeen | Presence::Gone => WaitsFor::Host,
        };
        let now = Instant::now();
        let wait = self.waits.entry(record.id).or_insert(Wait {
            waits_for,
            since: now,
            first: now,
        });
        if wait.waits_for != waits_for {
            (wait.waits_for, wait.since) = (waits_for, now);
        }
        let patience = match waits_for {
            WaitsFor::Taker => self.patience.untaken,
            WaitsFor::Host if record.life.attempts > 0 => self.patience.begun,
            WaitsFor::Host => self.patience.unbegun,
        };
        let waited = wait.first.elapsed();
        if wait.since.elapsed() <= patience && waited <= patience.max(self.patience.untaken) {
            return;
        }
        let trouble = match (waits_for, self.registry.last_heard(host)) {
            (WaitsFor::Taker, _) => "is connected but does not take the operation".to_owned(),
            (WaitsFor::Host, None) => "is not connected (not since the coordinator started)".to_owned(),
            (WaitsFor::Host, Some(at)) => format!("is not connected (last heard at {at})"),
        };
        let said = format!(
            "host {host} {trouble}; waited {} s for it. Start or repair its agent (`systemctl status hostler-agent` there), then repeat the call",
            waited.as_secs()
        );
        let outcome = self
            .engine
            .apply(record.id, None, Event::HostAbsent, |after| ending(after, &said))
            .await;
        report(record, "given up waiting for the host", outcome);
        self.waits.remove(&record.id);
    }
}

/// Keeps only what is known of `records`.
fn forget_others<T>(known: &mut HashMap<OperationId, T>, records: &[Arc<OperationRecord>]) {
    let ids: HashSet<_> = records.iter().map(|record| record.id).collect();
    known.retain(|id, _| ids.contains(id));
}

fn report(record: &OperationRecord, what: &str, outcome: Result<OperationRecord, EngineError>) {
    let (operation, resource) = (record.id, &record.resource);
    match outcome {
        Ok(after) => tracing::warn!(%operation, %resource, state = ?after.state(), "{what}"),
        // Somebody was quicker: a renewal, or the end.
        Err(EngineError::Illegal { .. } | EngineError::NoSuchOperation { .. }) => {}
        Err(error) => tracing::error!(%operation, %resource, error = %Chain(&error), "{what}, not stored"),
    }
}
