//! Follows an operation: what was said of it, then each change, until it ends. Each change is told after
//! the registry has taken it. Nothing is buffered: who reads slowly gets the lines later, from the record.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use hostler_common::id::OperationId;
use hostler_common::measure;
use hostler_common::operation::{Purpose, Subject};
use hostler_common::rpc::hostler::agent::v1::Measure;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_common::units::UnixMillis;
use tokio::time::Instant;

use super::engine::{Engine, EngineError};
use super::record::OperationRecord;
use super::sentences;
use super::state::Operator;
use crate::failpoint::Point;
use crate::registry::{Followed, Latest, Presence, Registry};

/// One stream says how far the work is no more often.
const BETWEEN_MEASURES: Duration = Duration::from_secs(1);

/// One line of an operation, with the state as it was known then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Where the operation stands.
    pub state: OperationState,
    /// What happened.
    pub message: String,
    /// When.
    pub at: UnixMillis,
    /// Set when it only says how far the work is.
    pub measure: Option<Measure>,
}

impl News {
    fn line(state: OperationState, message: impl Into<String>, at: UnixMillis) -> Self {
        Self {
            state,
            message: message.into(),
            at,
            measure: None,
        }
    }
}

/// From which line on an operation is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From its first.
    First,
    /// With a word that it is under way, then its last line and what follows.
    Attach,
}

struct Follower {
    engine: Engine,
    registry: Registry,
    followed: Followed,
    id: OperationId,
    seen: u64,
    state: State,
    queued: std::collections::VecDeque<News>,
    measured_at: Option<Instant>,
}

enum State {
    First(Start),
    Following,
    Over,
}

/// The lines of `id`; the last one is its end.
pub fn follow(
    engine: Engine,
    registry: Registry,
    id: OperationId,
    from: Start,
) -> impl Stream<Item = Result<News, EngineError>> + Send {
    // Subscribed before the record is read: a change in between is seen twice, and told once by its number.
    let followed = registry.follow(id);
    let state = State::First(from);
    let follower = Follower {
        engine,
        registry,
        followed,
        id,
        seen: 0,
        state,
        queued: Default::default(),
        measured_at: None,
    };
    stream::unfold(follower, |mut follower| async move {
        follower.next().await.map(|news| (news, follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Result<News, EngineError>> {
        loop {
            if let Some(news) = self.queued.pop_front() {
                match news.state {
                    OperationState::Scheduled => Point::Scheduled.pass(),
                    OperationState::Completed | OperationState::Failed => Point::EndTell.pass(),
                    _ => {}
                }
                return Some(Ok(news));
            }
            let step = match self.state {
                State::Over => return None,
                State::First(from) => self.begin(from).await,
                State::Following => self.change().await,
            };
            if let Err(error) = step {
                self.state = State::Over;
                return Some(Err(error));
            }
        }
    }

    async fn begin(&mut self, from: Start) -> Result<(), EngineError> {
        let record = match self.registry.operation(self.id) {
            Some(record) => record,
            None => self.read().await?,
        };
        self.state = State::Following;
        if from == Start::Attach {
            self.seen = record.logs.count().saturating_sub(1);
            // Clients of operations.v1 read a hypervisor's operation from the beginning of the words; for a pool
            // fleet.v1 has a field for it.
            let attached = match record.kind {
                Purpose::Work(kind) if kind.subject() == Subject::Hypervisor => "",
                Purpose::Work(_) | Purpose::Hold(_) => "attached to ",
            };
            let message = format!(
                "{attached}operation {}: {}, asked for by {} at {}, is under way",
                record.id,
                sentences::what_of(&record),
                record.requested_by,
                record.requested_at
            );
            let state = unended(record.state());
            self.queued
                .push_back(News::line(state, message, UnixMillis::now()));
        }
        self.take(&record);
        let host = &record.host;
        if record.state() == OperationState::Scheduled && self.registry.presence(host) != Presence::Connected
        {
            let message = format!("host {host} is not connected; waiting for it");
            self.queued
                .push_back(News::line(record.state(), message, UnixMillis::now()));
        }
        Ok(())
    }

    async fn change(&mut self) -> Result<(), EngineError> {
        let record = match self.followed.changed().await {
            Latest::Is(record) => record,
            Latest::Unknown => self.read().await?,
            Latest::Measure(measure) => {
                self.measure(measure);
                return Ok(());
            }
        };
        self.take(&record);
        Ok(())
    }

    /// Queues how far the work is, unless that was told a moment ago.
    fn measure(&mut self, measure: Measure) {
        let now = Instant::now();
        let too_early = |at: Instant| now.duration_since(at) < BETWEEN_MEASURES;
        if self.measured_at.is_some_and(too_early) {
            return;
        }
        self.measured_at = Some(now);
        self.queued.push_back(News {
            measure: Some(measure.clone()),
            ..News::line(OperationState::Active, measure::text(&measure), UnixMillis::now())
        });
    }

    /// Reads the store, and waits until the registry is as far: a list after this never shows an older state.
    async fn read(&self) -> Result<Arc<OperationRecord>, EngineError> {
        let (record, revision) = self.engine.get_at(self.id).await?;
        self.registry.taken(revision).await;
        Ok(Arc::new(record))
    }

    /// Queues what is new. The last line of an ended operation alone carries its end.
    fn take(&mut self, record: &OperationRecord) {
        let fresh = record.logs.after(self.seen);
        let state = record.state();
        for (at, log) in fresh.iter().enumerate() {
            let last = at + 1 == fresh.len();
            // Only the first line of all was said before an agent took it; a client's lock never waited.
            let waited = record.operator() == Operator::Agent;
            let first = waited && self.seen == 0 && at == 0 && !last;
            let state = match (last, first) {
                (true, _) => state,
                (false, true) => OperationState::Scheduled,
                (false, false) => unended(state),
            };
            self.queued
                .push_back(News::line(state, log.message.clone(), log.at));
        }
        self.seen = record.logs.count().max(self.seen);
        if record.end().is_some() {
            if self.queued.is_empty() {
                let at = record.ended_at.unwrap_or_default();
                self.queued.push_back(News::line(state, record.logs.last(), at));
            }
            self.state = State::Over;
        }
    }
}

fn unended(state: OperationState) -> OperationState {
    match state {
        OperationState::Completed | OperationState::Failed => OperationState::Active,
        other => other,
    }
}
