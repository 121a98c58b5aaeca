//! Files that are there whole or not at all.
//!
//! It never reads what it replaces. The invariant: whoever opens a file sees the old content or the new one, with the
//! new one's mode from its first byte, and what [`sync_dir`] has seen is there after a crash of the machine. Two
//! writers of one path in one process at a time are not for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::issued::WriteError;

/// The mode of what everybody may read: certificates.
pub(crate) const PUBLIC_MODE: u32 = 0o644;

/// The mode of what only its owner may read: keys.
pub(crate) const SECRET_MODE: u32 = 0o600;

/// Replaces one file and waits until that is on the disk, name and content.
pub(crate) fn replace_durably(path: &Path, content: &str, mode: u32) -> Result<(), WriteError> {
    replace(path, content, mode)?;
    sync_dir(directory_of(path))
}

/// Waits until the names in `dir` are on the disk; the contents are before.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), WriteError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| WriteError::Write {
            path: dir.to_owned(),
            source,
        })
}

/// Where `path` lies, also when it is only a name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Creates a file that must not exist.
pub(crate) fn create(path: &Path, content: &str, mode: u32) -> Result<(), WriteError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists { path },
            _ => WriteError::Write { path, source },
        }
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(content.as_bytes())
        // The mode again, since the umask may have taken from it.
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .map_err(|source| {
            // Half a file is worse than none.
            let _ = std::fs::remove_file(path);
            failed(source)
        })
}

/// Writes beside `path` and renames over it: a reader sees the old file or the new one.
pub(crate) fn replace(path: &Path, content: &str, mode: u32) -> Result<(), WriteError> {
    remove_abandoned(path)?;
    let beside = beside(path, std::process::id());
    create(&beside, content, mode)?;
    std::fs::rename(&beside, path).map_err(|source| {
        // Holds a key that nobody will use.
        let _ = std::fs::remove_file(&beside);
        WriteError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// Where the process `pid` writes what will be `path`.
fn beside(path: &Path, pid: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{pid}.new"));
    name.into()
}

/// Removes what a process that died wrote beside `path` and did not rename: a key may be in it. A file of our own
/// number is one of those too, since we have written none yet.
fn remove_abandoned(path: &Path) -> Result<(), WriteError> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(());
    };
    let dir = directory_of(path);
    let failed = |source| WriteError::Write {
        path: path.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let found = entry.map_err(failed)?.file_name();
        let writer = found
            .to_str()
            .and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".new"))
            .and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = writer else { continue };
        let is_at_work = pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists();
        if is_at_work {
            continue;
        }
        match std::fs::remove_file(beside(path, pid)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
            // Gone, by us or by another that tidied up at the same time.
            _ => {}
        }
    }
    Ok(())
}
