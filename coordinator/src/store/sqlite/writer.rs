//! The one writer. It takes every transaction that waits, commits them together, then answers each.
//!
//! Invariants: the witness hears of a revision after it is durable and before anybody else; what was refused is not
//! found in the log by the next process, unless the refusal said so; nothing is committed to files that have lost their
//! names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::content::Content;
use super::place::Place;
use super::schema::State;
use super::witness::Witness;
use super::{failure, uncertain};
use crate::store::handle::WriteRequest;
use crate::store::watch::Hub;
use crate::store::{Committed, Event, Revision, StoreError, Transaction, Write};

/// Transactions in one commit at most, so that the first of them does not wait for ever.
const GROUP_AT_MOST: usize = 256;

pub(super) struct Writer {
    connection: Connection,
    path: Arc<PathBuf>,
    place: Place,
    hub: Hub,
    state: State,
    witness: Option<Witness>,
    /// Whether the newest commit was refused.
    failed: bool,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        path: Arc<PathBuf>,
        hub: Hub,
        state: State,
        witness: Option<Witness>,
    ) -> Self {
        Self {
            connection,
            place: Place::of(&path),
            path,
            hub,
            state,
            witness,
            failed: false,
        }
    }

    /// Serves until every sender is dropped.
    pub(super) fn run(&mut self, mut requests: mpsc::Receiver<WriteRequest>) {
        let mut group = Vec::with_capacity(GROUP_AT_MOST);
        while requests.blocking_recv_many(&mut group, GROUP_AT_MOST) > 0 {
            let (transactions, answers): (Vec<_>, Vec<_>) = group
                .drain(..)
                .map(|request| (request.transaction, request.answer))
                .unzip();
            if let Some(moved) = self.place.moved() {
                refuse_moved(moved, answers);
                continue;
            }
            // Who asks for nothing wants to know whether the disk takes commits, which the newest one tells unless it failed.
            if !self.failed && transactions.iter().all(Transaction::is_empty) {
                for answer in answers {
                    let _ = answer.send(Ok(Committed::At(self.state.revision)));
                }
                continue;
            }
            let committed = self.commit(transactions);
            self.failed = committed.is_err();
            match committed {
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

    fn refuse(
        &mut self,
        answers: Vec<oneshot::Sender<Result<Committed, StoreError>>>,
        error: &rusqlite::Error,
    ) {
        let covered = self.cover();
        let refusal = || match covered {
            Ok(()) => failure(&self.path, "commit", error),
            Err(_) => uncertain(&self.path, "commit", error),
        };
        tracing::error!(error = %refusal(), "nothing can be stored");
        for answer in answers {
            let _ = answer.send(Err(refusal()));
        }
    }

    /// Writes a commit that changes nothing over one that failed. When only its flush failed, all of it is in the log, and
    /// the next process would find it there: what was refused hours ago would begin.
    fn cover(&mut self) -> rusqlite::Result<()> {
        let sql = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // There and back: an update to the same value would write nothing.
        sql.execute("UPDATE revision SET current = current + 1", [])?;
        sql.execute("UPDATE revision SET current = current - 1", [])?;
        sql.commit()
    }

    /// All of the group in one SQLite transaction: each is applied whole or conflicts; an error undoes all.
    fn commit(&mut self, group: Vec<Transaction>) -> rusqlite::Result<(Vec<Committed>, Vec<Event>)> {
        let sql = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let State {
            mut revision,
            mut content,
        } = self.state;
        let mut outcomes = Vec::with_capacity(group.len());
        let mut events = Vec::new();
        for transaction in group {
            if !holds(&sql, &transaction)? {
                outcomes.push(Committed::Conflict);
                continue;
            }
            revision = Revision(revision.0 + 1);
            for write in &transaction.writes {
                apply(&sql, write, revision, &mut content)?;
            }
            events.push(Event {
                revision,
                writes: transaction.writes,
            });
            outcomes.push(Committed::At(revision));
        }
        sql.prepare_cached("UPDATE revision SET current = ?1, content = ?2")?
            .execute((revision.0.cast_signed(), content.seal(revision)))?;
        sql.commit()?;
        self.state = State { revision, content };
        if let Some(witness) = &mut self.witness {
            witness.tell(revision);
        }
        Ok((outcomes, events))
    }
}

fn refuse_moved(moved: &Path, answers: Vec<oneshot::Sender<Result<Committed, StoreError>>>) {
    let refusal = || StoreError::Moved {
        path: moved.to_owned(),
    };
    tracing::error!(error = %refusal(), "nothing can be stored");
    for answer in answers {
        let _ = answer.send(Err(refusal()));
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

fn apply(sql: &Connection, write: &Write, revision: Revision, content: &mut Content) -> rusqlite::Result<()> {
    let key = write.key();
    let mut before = sql.prepare_cached("SELECT value, modified FROM kv WHERE key = ?1")?;
    let mut rows = before.query([key])?;
    if let Some(row) = rows.next()? {
        content.turn(
            key,
            row.get_ref(0)?.as_blob()?,
            Revision(row.get::<_, i64>(1)?.cast_unsigned()),
        );
    }
    drop(rows);
    match write {
        Write::Put { key, value } => {
            content.turn(key, value, revision);
            sql.prepare_cached("INSERT OR REPLACE INTO kv (key, value, modified) VALUES (?1, ?2, ?3)")?
                .execute((key, value, revision.0.cast_signed()))?
        }
        Write::Delete { key } => sql
            .prepare_cached("DELETE FROM kv WHERE key = ?1")?
            .execute([key])?,
    };
    Ok(())
}
