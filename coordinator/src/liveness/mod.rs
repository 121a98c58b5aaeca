//! Time's part in operations: leases that are not renewed, hosts that stay away. Counted on the monotonic
//! clock, from when this process first saw it: a step of the wall clock frees nothing, and a restart gives
//! every holder its whole lease again.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use hostler_common::error::Chain;
use hostler_common::id::OperationId;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::operation::engine::{Engine, EngineError, ending};
use crate::operation::record::OperationRecord;
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
    /// Operations whose host has no session, and since when they wait for it.
    waits: HashMap<OperationId, Instant>,
}

impl Liveness {
    async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let turns = self.registry.turns();
            let absent =
                |record: &OperationRecord| self.registry.presence(&record.host) != Presence::Connected;
            let scheduled: HashSet<_> = turns
                .iter()
                .filter(|record| record.life.phase == Phase::Scheduled && absent(record))
                .map(|record| record.id)
                .collect();
            self.waits.retain(|id, _| scheduled.contains(id));
            self.leases.retain(|id, _| {
                turns
                    .iter()
                    .any(|record| record.id == *id && !scheduled.contains(id))
            });
            for record in turns {
                match &record.life.phase {
                    Phase::Active(lease) => self.judge_lease(&record, lease).await,
                    Phase::Scheduled if scheduled.contains(&record.id) => self.judge_absence(&record).await,
                    Phase::Scheduled | Phase::Ended(_) => {}
                }
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
    }

    async fn judge_absence(&mut self, record: &OperationRecord) {
        let waited = self.waits.entry(record.id).or_insert_with(Instant::now).elapsed();
        let begun = record.life.attempts > 0;
        if waited
            <= if begun {
                self.patience.begun
            } else {
                self.patience.unbegun
            }
        {
            return;
        }
        let host = &record.host;
        let last = self.registry.last_heard(host).map_or_else(
            || "not since the coordinator started".to_owned(),
            |at| format!("last heard at {at}"),
        );
        let said = format!(
            "host {host} is not connected ({last}); waited {} s for it. Start or repair its agent (`systemctl status hostler-agent` there), then repeat the call",
            waited.as_secs()
        );
        let outcome = self
            .engine
            .apply(record.id, None, Event::HostAbsent, |after| ending(after, &said))
            .await;
        report(record, "host absent", outcome);
    }
}

fn report(record: &OperationRecord, what: &str, outcome: Result<OperationRecord, EngineError>) {
    let (operation, hypervisor) = (record.id, &record.resource);
    match outcome {
        Ok(after) => tracing::warn!(%operation, %hypervisor, state = ?after.state(), "{what}"),
        // Somebody was quicker: a renewal, or the end.
        Err(EngineError::Illegal { .. } | EngineError::NoSuchOperation { .. }) => {}
        Err(error) => tracing::error!(%operation, %hypervisor, error = %Chain(&error), "{what}, not stored"),
    }
}
