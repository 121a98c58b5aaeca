//! Copies of the store, made while it is served: one file that is checked before it gets its name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{failure, schema};
use crate::store::{Revision, StoreError};

/// Saves what `store` holds at one instant as `copy`, which must not be there. Answers with its revision.
///
/// # Errors
/// When the store cannot be read or is damaged, or `copy` cannot be written. Then there is no `copy`.
pub(super) fn back_up(store: &Path, copy: &Path) -> Result<Revision, StoreError> {
    let at = |source| StoreError::Copy {
        path: copy.to_owned(),
        source,
    };
    if copy.symlink_metadata().is_ok() {
        return Err(at(io::ErrorKind::AlreadyExists.into()));
    }
    let mut name = copy.as_os_str().to_owned();
    name.push(".part");
    let part = Path::new(&name);
    let saved = save(store, part).and_then(|revision| {
        let placed = File::open(part)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(part, copy))
            .and_then(|()| sync_parent(copy));
        placed.map_err(at).map(|()| revision)
    });
    if saved.is_err() {
        // Nothing that was not checked is left to be taken for a copy.
        let _ = fs::remove_file(part);
    }
    saved
}

fn save(store: &Path, part: &Path) -> Result<Revision, StoreError> {
    // What is in the store is for its owner's eyes, and so is its copy. SQLite writes into an empty file only.
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .map_err(|source| StoreError::Copy {
            path: part.to_owned(),
            source,
        })?;
    let reader = schema::open_reader(store)?;
    reader
        .execute("VACUUM INTO ?1", [part.to_string_lossy()])
        .map_err(|error| failure(store, "be copied", &error))?;
    let (connection, state) = schema::open(part, |_| Ok(()))?;
    // Closing it leaves one file.
    schema::keep_log(part, &connection, false)?;
    Ok(state.revision)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
