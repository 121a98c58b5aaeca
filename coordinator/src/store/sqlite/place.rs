//! Whether the store's files still lie where they were opened. A file that was removed or replaced takes commits as before,
//! and all of them are gone when the process ends.
//!
//! It decides nothing. Invariant: files that nobody has touched are never held for moved, whatever else the disk refuses.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Which file it is, whatever its name.
type Identity = (u64, u64);

/// The store's file and its log, as they were when they were opened.
#[derive(Debug)]
pub(super) struct Place {
    files: Vec<(PathBuf, Identity)>,
}

impl Place {
    /// Of the open store at `store`.
    pub(super) fn of(store: &Path) -> Self {
        let files = [store.to_owned(), store.with_extension("db-wal")];
        let known = |path: PathBuf| identity(&path).ok().flatten().map(|is| (path, is));
        Self {
            files: files.into_iter().filter_map(known).collect(),
        }
    }

    /// The file that is not there any more, or is another. What cannot be looked at is no answer: SQLite will say.
    pub(super) fn moved(&self) -> Option<&Path> {
        let moved = |(path, was): &&(PathBuf, Identity)| identity(path).is_ok_and(|is| is != Some(*was));
        self.files.iter().find(moved).map(|(path, _)| path.as_path())
    }
}

/// None when there is no such file.
fn identity(path: &Path) -> std::io::Result<Option<Identity>> {
    match std::fs::metadata(path) {
        Ok(about) => Ok(Some((about.dev(), about.ino()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
