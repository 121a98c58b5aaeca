//! Keeps finished operations by count and age, both bounded. An operation that needs attention stays until
//! it is resolved; one that has not ended is never touched.

use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::units::UnixMillis;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::record::{OperationRecord, PREFIX};
use super::state::End;
use crate::failpoint::Point;
use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Order, Range, Store, Transaction, Write};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(600);

/// Operations read at once.
const PAGE: usize = 200;

/// What is kept of finished operations.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// The newest of them, at most this many.
    pub count: usize,
    /// None older than this.
    pub age: Duration,
}

/// Starts the cleaning in `tasks`.
pub fn spawn(store: Store, retention: Retention, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match clean(&store, retention, UnixMillis::now()).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "old operations removed"),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "old operations cannot be removed");
                }
            }
        }
    });
}

/// Removes what is beyond `retention` and tells how many.
///
/// # Errors
/// When the store fails; what was removed until then stays removed.
pub async fn clean(store: &Store, retention: Retention, now: UnixMillis) -> Result<usize, RecordError> {
    let (mut kept, mut removed, mut beyond) = (0, 0, None);
    loop {
        let range = Range {
            prefix: PREFIX.to_owned(),
            beyond,
            at_most: PAGE,
            order: Order::Descending,
        };
        let (entries, _) = store.list(range).await?;
        let Some(last) = entries.last() else {
            return Ok(removed);
        };
        beyond = Some(last.key.clone());
        let mut transaction = Transaction::default();
        for entry in &entries {
            let record: OperationRecord = json::read(entry)?;
            if matches!(record.end(), Some(End::Completed | End::Failed)) {
                let old = record.ended_at.is_some_and(|at| at.until(now) > retention.age);
                if old || kept >= retention.count {
                    transaction.compares.push(Compare {
                        key: entry.key.clone(),
                        modified: entry.modified,
                    });
                    transaction.writes.push(Write::Delete {
                        key: entry.key.clone(),
                    });
                } else {
                    kept += 1;
                }
            }
        }
        let count = transaction.writes.len();
        if count == 0 {
            continue;
        }
        Point::RetentionBefore.pass();
        if matches!(store.commit(transaction).await?, Committed::At(_)) {
            Point::RetentionAfter.pass();
            removed += count;
        }
    }
}
