//! The file's format: opening, checking and migrating it. A format is never changed, only followed by another.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::failure;
use crate::store::StoreError;

/// Each entry takes a store from the format of its index to the next. `PRAGMA user_version` is the format.
const MIGRATIONS: [&str; 1] = [
    // 0 → 1: an empty file to the first format.
    "CREATE TABLE kv (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, modified INTEGER NOT NULL) WITHOUT ROWID;
     CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), current INTEGER NOT NULL);
     INSERT INTO revision VALUES (1, 0);",
];

/// The newest format.
fn known() -> i64 {
    format_of(MIGRATIONS.len())
}

/// As `PRAGMA user_version` holds it.
fn format_of(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |action| move |error| failure(path, action, &error);
    let mut connection = Connection::open(path).map_err(failed("be opened"))?;
    check(path, &connection)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(failed("use WAL"))?;
    // FULL: a commit is on the disk before it is answered.
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed("be set up"))?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("tell its format"))?;
    if found > known() {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known: known(),
        });
    }
    for (from, migration) in MIGRATIONS
        .iter()
        .enumerate()
        .skip(usize::try_from(found).unwrap_or(0))
    {
        let step = connection.transaction().map_err(failed("be migrated"))?;
        step.execute_batch(migration).map_err(failed("be migrated"))?;
        step.pragma_update(None, "user_version", format_of(from + 1))
            .map_err(failed("be migrated"))?;
        step.commit().map_err(failed("be migrated"))?;
    }
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| failure(path, "be opened", &error))
}

fn check(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let damaged = |problem: String| StoreError::Damaged {
        path: path.to_owned(),
        problem,
    };
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(problem) => Err(damaged(problem)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Err(damaged(error.to_string())),
            _ => Err(failure(path, "be checked", &error)),
        },
    }
}
