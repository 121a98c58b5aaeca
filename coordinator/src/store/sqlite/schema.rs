//! The file's format: opening, checking and migrating it. A format is never changed, only followed by another.
//!
//! A refusal leaves every file as it was found: what is refused may be all that there is to repair.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::content::Content;
use super::failure;
use crate::store::{Revision, StoreError};

/// Each entry takes a store from the format of its index to the next. `PRAGMA user_version` is the format.
const MIGRATIONS: [fn(&Connection) -> rusqlite::Result<()>; 2] = [
    // 0 → 1: an empty file to the first format.
    |empty| {
        empty.execute_batch(
            "CREATE TABLE kv (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, modified INTEGER NOT NULL) WITHOUT ROWID;
             CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), current INTEGER NOT NULL);
             INSERT INTO revision VALUES (1, 0);",
        )
    },
    // 1 → 2: the sum of all records beside the revision.
    |store| {
        store.execute_batch("ALTER TABLE revision ADD COLUMN content BLOB NOT NULL DEFAULT x''")?;
        let sealed = Content::read(store)?.seal(revision(store)?);
        store
            .execute("UPDATE revision SET content = ?1", [sealed])
            .map(drop)
    },
];

/// What an opened store holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) content: Content,
}

/// The newest format.
fn known() -> i64 {
    format_of(MIGRATIONS.len())
}

/// As `PRAGMA user_version` holds it.
fn format_of(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// Opens and checks the store at `path`, and migrates it. Before one of an earlier format is changed `migrating` hears of
/// its revision: what it does not do, nobody does after a crash.
pub(super) fn open(
    path: &Path,
    migrating: impl FnOnce(Revision) -> Result<(), StoreError>,
) -> Result<(Connection, State), StoreError> {
    let failed = |action| move |error| failure(path, action, &error);
    let mut connection = Connection::open(path).map_err(failed("be opened"))?;
    // Closing would move the log into the file: not before all of it is known to be good.
    keep_log(path, &connection, true)?;
    check(path, &connection)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(failed("use WAL"))?;
    // FULL: a commit is on the disk before it is answered.
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed("be set up"))?;
    let found = format(path, &connection)?;
    if found > 0 && found < known() {
        migrating(revision(&connection).map_err(|error| unreadable(path, &error))?)?;
    }
    for (from, migration) in MIGRATIONS
        .iter()
        .enumerate()
        .skip(usize::try_from(found).unwrap_or(0))
    {
        let step = connection.transaction().map_err(failed("be migrated"))?;
        migration(&step).map_err(failed("be migrated"))?;
        step.pragma_update(None, "user_version", format_of(from + 1))
            .map_err(failed("be migrated"))?;
        step.commit().map_err(failed("be migrated"))?;
    }
    let state = state(path, &connection)?;
    Ok((connection, state))
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| failure(path, "be opened", &error))
}

/// Whether the log stays beside the file when the last connection closes.
pub(super) fn keep_log(path: &Path, connection: &Connection, keep: bool) -> Result<(), StoreError> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(drop)
        .map_err(|error| failure(path, "be set up", &error))
}

fn format(path: &Path, connection: &Connection) -> Result<i64, StoreError> {
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| failure(path, "tell its format", &error))?;
    match found > known() {
        true => Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known: known(),
        }),
        false => Ok(found),
    }
}

fn check(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(problem) => Err(damaged(path, problem)),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// What it holds, when that is what was written.
fn state(path: &Path, connection: &Connection) -> Result<State, StoreError> {
    let read = || {
        let sealed: Vec<u8> = connection.query_row("SELECT content FROM revision", [], |row| row.get(0))?;
        Ok((revision(connection)?, Content::read(connection)?, sealed))
    };
    let (revision, content, sealed) = read().map_err(|error| unreadable(path, &error))?;
    match content.seal(revision).as_slice() == sealed {
        true => Ok(State { revision, content }),
        false => Err(damaged(
            path,
            "its records are not those that were written".to_owned(),
        )),
    }
}

fn revision(connection: &Connection) -> rusqlite::Result<Revision> {
    let current: i64 = connection.query_row("SELECT current FROM revision", [], |row| row.get(0))?;
    Ok(Revision(current.cast_unsigned()))
}

fn damaged(path: &Path, problem: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        // SQLite's check answers with lines.
        problem: problem.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// What cannot be read where it must be is damaged, unless it is the disk that fails.
fn unreadable(path: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseBusy,
        ) => failure(path, "be checked", error),
        _ => damaged(path, error.to_string()),
    }
}
