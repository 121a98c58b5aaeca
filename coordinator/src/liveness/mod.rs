//! Time's part in operations: leases that are not renewed, hosts that stay away. Counted on the monotonic
//! clock, from when this process first saw it: a step of the wall clock frees nothing, and a restart gives
//! every agent its whole lease again.
//!
//! A client's lock may be for days, in which a coordinator may be restarted often. So what it has run is written
//! down now and then, and a restart gives back no more than what ran since: never twice the lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::{HostName, OperationId};
use hostler_common::rpc::hostler::agent::v1::{FinishAnswer, SessionResponse, session_response};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::identity::Identities;
use crate::operation::engine::{Engine, EngineError};
use crate::operation::record::OperationRecord;
use crate::operation::sentences::{self, ending};
use crate::operation::state::{End, Event, Lease, Operator, Phase};
use crate::registry::{Presence, Registry};
use crate::session::registry::Sessions;

/// How exact the deadlines are.
const TICK: Duration = Duration::from_millis(250);

/// What a client's lock has run is written down after a part of it, within these bounds.
const REMEMBERED_PART: u32 = 16;
const REMEMBERED_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
pub fn spawn(
    registry: Registry,
    engine: Engine,
    sessions: Sessions,
    identities: Identities,
    patience: Patience,
    tasks: &mut JoinSet<()>,
) {
    let liveness = Liveness {
        registry,
        engine,
        sessions,
        identities,
        patience,
        leases: HashMap::new(),
        waits: HashMap::new(),
    };
    tasks.spawn(liveness.run());
}

struct Liveness {
    registry: Registry,
    engine: Engine,
    sessions: Sessions,
    identities: Identities,
    patience: Patience,
    /// Each held lease as last seen.
    leases: HashMap<OperationId, Counted>,
    /// Each scheduled operation whose turn it is.
    waits: HashMap<OperationId, Wait>,
}

/// A lease that runs.
#[derive(Debug)]
struct Counted {
    /// As it was first seen, with what it had run by then.
    lease: Lease,
    since: Instant,
    /// When it was last tried to write down what it has run.
    remembered: Instant,
}

impl Counted {
    /// Whether `lease` is this one, not renewed. What was written down meanwhile is counted already.
    fn is(&self, lease: &Lease) -> bool {
        let ran_ms = self.lease.ran_ms;
        self.lease
            == Lease {
                ran_ms,
                ..lease.clone()
            }
    }
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
        let fresh = || Counted {
            lease: lease.clone(),
            since: now,
            remembered: now,
        };
        let counted = self.leases.entry(record.id).or_insert_with(fresh);
        if !counted.is(lease) {
            *counted = fresh();
        }
        let ran = Duration::from_millis(counted.lease.ran_ms) + counted.since.elapsed();
        let lasts = Duration::from_secs(u64::from(lease.lock_for_seconds));
        if ran <= lasts {
            let (least, most) = REMEMBERED_AFTER;
            let after = (lasts / REMEMBERED_PART).clamp(least, most);
            if record.operator() == Operator::Client && counted.remembered.elapsed() >= after {
                counted.remembered = now;
                self.remember(record, lease, ran).await;
            }
            return;
        }
        let outcome = self
            .engine
            .apply(record.id, None, Event::LeaseExpired(lease.clone()), |after| {
                sentences::expired(after, lease)
            })
            .await;
        self.tell_end(outcome.as_ref());
        report(record, "lease expired", outcome);
        // When it could not be stored, it is tried again after another lease, not at every tick.
        self.leases.remove(&record.id);
    }

    /// An agent that is connected and has begun the operation is told that it has ended without it. It may be lost: the
    /// agent hears of it when it next speaks of the operation, or in its next session.
    fn tell_end(&self, outcome: Result<&OperationRecord, &EngineError>) {
        let Ok(after) = outcome else { return };
        if after.end().is_none() || after.operator() == Operator::Client {
            return;
        }
        if let Some(session) = self.sessions.of(&after.host) {
            let message = Some(session_response::Message::FinishAnswer(FinishAnswer {
                operation_id: after.id.to_string(),
                accepted: false,
                reason: after.logs.last().to_owned(),
            }));
            let _ = session.outbound.try_send(SessionResponse { message });
        }
    }

    async fn remember(&self, record: &OperationRecord, lease: &Lease, ran: Duration) {
        let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        match self.engine.remember_ran(record.id, lease.clone(), ran_ms).await {
            // Somebody was quicker: a renewal, or the end.
            Ok(_) | Err(EngineError::Illegal { .. } | EngineError::NoSuchOperation { .. }) => {}
            Err(error) => {
                let (operation, resource) = (record.id, &record.resource);
                tracing::error!(%operation, %resource, error = %Chain(&error), "what a lock has run, not stored");
            }
        }
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
        let said = self.given_up(host, waits_for, waited);
        let outcome = self
            .engine
            .apply(record.id, None, Event::HostAbsent, |after| ending(after, &said))
            .await;
        self.tell_end(outcome.as_ref());
        report(record, "given up waiting for the host", outcome);
        self.waits.remove(&record.id);
    }

    /// Why `host` is not waited for any more, and what cures it.
    fn given_up(&self, host: &HostName, waits_for: WaitsFor, waited: Duration) -> String {
        let waited = format!("waited {} s for it", waited.as_secs());
        if let (WaitsFor::Host, Some(at)) = (waits_for, self.identities.barred(host)) {
            return format!(
                "host {host} was revoked at {at} and has not come back; {waited}. Enrol it again with a new token (`hostler tokens create --host {host}`), then repeat the call; or `hostler agents lost {host}`"
            );
        }
        let trouble = match (waits_for, self.registry.last_heard(host)) {
            (WaitsFor::Taker, _) => "is connected but does not take the operation".to_owned(),
            (WaitsFor::Host, None) => "is not connected (not since the coordinator started)".to_owned(),
            (WaitsFor::Host, Some(at)) => format!("is not connected (last heard at {at})"),
        };
        format!(
            "host {host} {trouble}; {waited}. Start or repair its agent (`systemctl status hostler-agent` there), then repeat the call"
        )
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
        Ok(after) if after.end() == Some(End::Completed) => {
            tracing::info!(%operation, %resource, state = ?after.state(), "{what}");
        }
        Ok(after) => tracing::warn!(%operation, %resource, state = ?after.state(), "{what}"),
        // Somebody was quicker: a renewal, or the end.
        Err(EngineError::Illegal { .. } | EngineError::NoSuchOperation { .. }) => {}
        Err(error) => tracing::error!(%operation, %resource, error = %Chain(&error), "{what}, not stored"),
    }
}
