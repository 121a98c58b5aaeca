//! The one writer. It takes every transaction that waits, commits them together, then answers each.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::failure;
use crate::store::handle::WriteRequest;
use crate::store::watch::Hub;
use crate::store::{Committed, Event, Revision, StoreError, Transaction, Write};

/// Transactions in one commit at most, so that the first of them does not wait for ever.
const GROUP_AT_MOST: usize = 256;

pub(super) struct Writer {
    connection: Connection,
    path: Arc<PathBuf>,
    hub: Hub,
    revision: Revision,
}

impl Writer {
    pub(super) fn new(connection: Connection, path: Arc<PathBuf>, hub: Hub) -> Result<Self, StoreError> {
        let revision = connection
            .query_row("SELECT current FROM revision", [], |row| row.get::<_, i64>(0))
            .map(|current| Revision(current.unsigned_abs()))
            .map_err(|error| failure(&path, "tell its revision", &error))?;
        Ok(Self {
            connection,
            path,
            hub,
            revision,
        })
    }

    /// Serves until every sender is dropped.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<WriteRequest>) {
        let mut group = Vec::with_capacity(GROUP_AT_MOST);
        while requests.blocking_recv_many(&mut group, GROUP_AT_MOST) > 0 {
            let (transactions, answers): (Vec<_>, Vec<_>) = group
                .drain(..)
                .map(|request| (request.transaction, request.answer))
                .unzip();
            match self.commit(&transactions) {
                Ok((outcomes, events)) => {
                    for event in events {
                        self.hub.publish(event);
                    }
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        // Who hung up does not change that it is durable.
                        let _ = answer.send(Ok(outcome));
                    }
                }
                Err(error) => self.refuse(answers, &error),
            }
        }
    }

    fn refuse(&self, answers: Vec<oneshot::Sender<Result<Committed, StoreError>>>, error: &rusqlite::Error) {
        let refusal = || failure(&self.path, "commit", error);
        tracing::error!(error = %refusal(), "nothing can be stored");
        for answer in answers {
            let _ = answer.send(Err(refusal()));
        }
    }

    /// All of the group in one SQLite transaction: each is applied whole or conflicts; an error undoes all.
    fn commit(&mut self, group: &[Transaction]) -> rusqlite::Result<(Vec<Committed>, Vec<Event>)> {
        let sql = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut revision = self.revision;
        let mut outcomes = Vec::with_capacity(group.len());
        let mut events = Vec::new();
        for transaction in group {
            if !holds(&sql, transaction)? {
                outcomes.push(Committed::Conflict);
                continue;
            }
            revision = Revision(revision.0 + 1);
            for write in &transaction.writes {
                apply(&sql, write, revision)?;
            }
            events.push(Event {
                revision,
                writes: transaction.writes.clone(),
            });
            outcomes.push(Committed::At(revision));
        }
        sql.prepare_cached("UPDATE revision SET current = ?1")?
            .execute([revision.0.cast_signed()])?;
        sql.commit()?;
        self.revision = revision;
        Ok((outcomes, events))
    }
}

fn holds(sql: &Connection, transaction: &Transaction) -> rusqlite::Result<bool> {
    let mut select = sql.prepare_cached("SELECT modified FROM kv WHERE key = ?1")?;
    for compare in &transaction.compares {
        let modified: Option<i64> = select.query_row([&compare.key], |row| row.get(0)).optional()?;
        if modified.unwrap_or(0).unsigned_abs() != compare.modified.0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn apply(sql: &Connection, write: &Write, revision: Revision) -> rusqlite::Result<()> {
    match write {
        Write::Put { key, value } => sql
            .prepare_cached("INSERT OR REPLACE INTO kv (key, value, modified) VALUES (?1, ?2, ?3)")?
            .execute((key, value, revision.0.cast_signed()))?,
        Write::Delete { key } => sql
            .prepare_cached("DELETE FROM kv WHERE key = ?1")?
            .execute([key])?,
    };
    Ok(())
}
