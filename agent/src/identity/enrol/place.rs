//! Where an enrolment puts things: one enrolment at a time in a directory, and files that are replaced whole.
//!
//! It knows no certificates. The invariant: what a death leaves half written is in nobody's way and goes with the next try.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use super::EnrolError;
use super::failpoint::Point;

/// For keys: nobody else looks in. One that is there keeps its mode.
pub(super) fn make_directory(path: &Path) -> Result<(), EnrolError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| EnrolError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// This enrolment has the directory for itself until the file is dropped. The lock is on the directory, so that none is left behind.
pub(super) fn take(path: &Path) -> Result<File, EnrolError> {
    let failed = |source| EnrolError::Directory {
        path: path.to_owned(),
        source,
    };
    let directory = File::open(path).map_err(failed)?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(EnrolError::Taken {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Puts `text` in the place of `path`, whole and durable, with the owner and the mode that were there. Until it has them nobody
/// else can read it.
pub(super) fn put(path: &Path, text: &str) -> io::Result<()> {
    // What a link points to is what a person keeps elsewhere, perhaps under version control.
    let path = &match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        found => found?,
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".enrolled");
    let beside = PathBuf::from(name);
    remove(&beside)?;
    let written = write_beside(path, &beside, text).and_then(|()| {
        Point::Beside.pass();
        std::fs::rename(&beside, path)
    });
    if written.is_err() {
        // Half a file, on a disk that may be full.
        let _ = remove(&beside);
    }
    written?;
    File::open(dir)?.sync_all()
}

fn write_beside(path: &Path, beside: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    file.write_all(text.as_bytes())?;
    let mode = match std::fs::metadata(path) {
        Ok(found) => {
            fchown(&file, Some(found.uid()), Some(found.gid()))?;
            found.permissions()
        }
        Err(_) => Permissions::from_mode(0o644),
    };
    file.set_permissions(mode)?;
    file.sync_all()
}

/// Removes a file that need not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_behind_a_link_is_replaced_and_the_link_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, link) = (dir.path().join("kept.toml"), dir.path().join("agent.toml"));
        std::fs::write(&kept, "before").unwrap();
        std::fs::set_permissions(&kept, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        put(&link, "after").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "after");
        assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_is_for_one_enrolment_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap();
        assert!(matches!(take(dir.path()), Err(EnrolError::Taken { .. })));
        drop(first);
        take(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
