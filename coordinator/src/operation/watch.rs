//! Follows an operation: what was said of it, then each change, until it ends. Each change is told after
//! the registry has taken it. Nothing is buffered: who reads slowly gets the lines later, from the record.

use std::sync::Arc;

use futures_util::{Stream, stream};
use hostler_common::id::OperationId;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_common::units::UnixMillis;

use super::engine::{Engine, EngineError};
use super::record::OperationRecord;
use crate::registry::{Followed, Latest, Presence, Registry};

/// One line of an operation, with the state as it was known then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Where the operation stands.
    pub state: OperationState,
    /// What happened.
    pub message: String,
    /// When.
    pub at: UnixMillis,
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
    };
    stream::unfold(follower, |mut follower| async move {
        follower.next().await.map(|news| (news, follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Result<News, EngineError>> {
        loop {
            if let Some(news) = self.queued.pop_front() {
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
            let message = format!(
                "operation {}: {} {}, asked for by {} at {}, is under way",
                record.id,
                record.kind.verb(),
                record.resource,
                record.requested_by,
                record.requested_at
            );
            let state = unended(record.state());
            self.queued.push_back(News {
                state,
                message,
                at: UnixMillis::now(),
            });
        }
        self.take(&record);
        let host = &record.host;
        if record.state() == OperationState::Scheduled && self.registry.presence(host) != Presence::Connected
        {
            let message = format!("host {host} is not connected; waiting for it");
            self.queued.push_back(News {
                state: record.state(),
                message,
                at: UnixMillis::now(),
            });
        }
        Ok(())
    }

    async fn change(&mut self) -> Result<(), EngineError> {
        let record = match self.followed.changed().await {
            Latest::Is(record) => record,
            Latest::Unknown => self.read().await?,
        };
        self.take(&record);
        Ok(())
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
            // Only the first line of all was said before anybody took it.
            let first = self.seen == 0 && at == 0 && !last;
            let state = match (last, first) {
                (true, _) => state,
                (false, true) => OperationState::Scheduled,
                (false, false) => unended(state),
            };
            self.queued.push_back(News {
                state,
                message: log.message.clone(),
                at: log.at,
            });
        }
        self.seen = record.logs.count().max(self.seen);
        if record.end().is_some() {
            if self.queued.is_empty() {
                let message = record.logs.last().to_owned();
                let at = record.ended_at.unwrap_or_default();
                self.queued.push_back(News { state, message, at });
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
