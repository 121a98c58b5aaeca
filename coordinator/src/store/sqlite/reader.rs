//! The one reader: answers gets and listings, each from one instant of the store.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::mpsc;

use super::failure;
use crate::store::handle::ReadRequest;
use crate::store::{Entry, Order, Range, Revision};

/// Serves until every sender is dropped.
pub(super) fn run(connection: Connection, path: &Path, mut requests: mpsc::Receiver<ReadRequest>) {
    let failed = |error| failure(path, "be read", &error);
    while let Some(request) = requests.blocking_recv() {
        // Who hung up needs no answer.
        match request {
            ReadRequest::Get { keys, answer } => {
                let _ = answer.send(get(&connection, &keys).map_err(failed));
            }
            ReadRequest::List { range, answer } => {
                let _ = answer.send(list(&connection, &range).map_err(failed));
            }
        }
    }
}

fn get(connection: &Connection, keys: &[String]) -> rusqlite::Result<Vec<Option<Entry>>> {
    let instant = connection.unchecked_transaction()?;
    let mut select = instant.prepare_cached("SELECT key, value, modified FROM kv WHERE key = ?1")?;
    keys.iter()
        .map(|key| select.query_row([key], entry).optional())
        .collect()
}

fn list(connection: &Connection, range: &Range) -> rusqlite::Result<(Vec<Entry>, Revision)> {
    let instant = connection.unchecked_transaction()?;
    let current: i64 = instant.query_row("SELECT current FROM revision", [], |row| row.get(0))?;
    // Keys are ASCII, so that the character after the prefix's range is above every key in it.
    let end = format!("{}\u{10ffff}", range.prefix);
    let limit = i64::try_from(range.at_most).unwrap_or(i64::MAX);
    let (sql, low, high) = match range.order {
        Order::Ascending => (
            "SELECT key, value, modified FROM kv WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3",
            range.beyond.as_ref().unwrap_or(&range.prefix),
            &end,
        ),
        Order::Descending => (
            "SELECT key, value, modified FROM kv WHERE key > ?1 AND key < ?2 ORDER BY key DESC LIMIT ?3",
            &range.prefix,
            range.beyond.as_ref().unwrap_or(&end),
        ),
    };
    let mut select = instant.prepare_cached(sql)?;
    let entries = select
        .query_map((low, high, limit), entry)?
        .collect::<Result<_, _>>()?;
    Ok((entries, Revision(current.unsigned_abs())))
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: row.get(1)?,
        modified: Revision(row.get::<_, i64>(2)?.unsigned_abs()),
    })
}
