//! Where files may be restored: in the pool and in the folders that the configuration names, and nowhere that a
//! symbolic link leads out of them.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hostler_common::bytes::Bytes;
use nix::sys::statvfs::statvfs;
use thiserror::Error;

use super::super::{OWN_FOLDER, Settings};
use super::Into;

/// Why nothing is restored to where it was to go.
#[derive(Debug, Error)]
pub(super) enum BoundsFault {
    #[error("the directory that {} would be in cannot be used; make it first", target.display())]
    Parent {
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} cannot be looked at", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is outside of what may be restored into: {allowed}; the agent's configuration may name more folders, restore_into", target.display()
    )]
    Outside { target: PathBuf, allowed: String },
    #[error("{} is one of the folders that are restored into; name a directory inside of it", target.display())]
    Root { target: PathBuf },
    #[error("the pool at {} holds files; restore paths of it, or everything into a new directory in it", path.display())]
    PoolInUse { path: PathBuf },
    #[error("{} is in the pool's own folder {OWN_FOLDER}", target.display())]
    OwnFolder { target: PathBuf },
    #[error("{} is not a directory", target.display())]
    NoDirectory { target: PathBuf },
    #[error("{} is not empty; name an empty directory, or one that does not exist", target.display())]
    NotEmpty { target: PathBuf },
    #[error("{} is a mount point or a subvolume; name a directory inside of it", target.display())]
    MountPoint { target: PathBuf },
    #[error("{} has room for {free}, and the files take {}", path.display(), needed.exact())]
    Room {
        path: PathBuf,
        free: Bytes,
        needed: Bytes,
    },
}

/// Whether everything may go into `target`, and how.
pub(super) fn directory(settings: &Settings, target: &Path) -> Result<Into, BoundsFault> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(outside(settings, target));
    };
    // A link on the way is followed once, here; what is used from now on has none.
    let real = parent.canonicalize().map_err(|source| BoundsFault::Parent {
        target: target.to_owned(),
        source,
    })?;
    let real = real.join(name);
    let pool = settings.pool_path.canonicalize().ok();
    if pool.as_ref() == Some(&real) {
        return match entries(&real)?.iter().all(|name| name == OWN_FOLDER) {
            true => Ok(Into::EmptyPool),
            false => Err(BoundsFault::PoolInUse { path: real }),
        };
    }
    let others: Vec<PathBuf> = settings
        .restore_into
        .iter()
        .filter_map(|root| root.canonicalize().ok())
        .collect();
    if others.contains(&real) {
        return Err(BoundsFault::Root { target: real });
    }
    if !pool.iter().chain(&others).any(|root| real.starts_with(root)) {
        return Err(outside(settings, &real));
    }
    if let Some(pool) = &pool
        && real.starts_with(pool.join(OWN_FOLDER))
    {
        return Err(BoundsFault::OwnFolder { target: real });
    }
    empty_or_absent(&real)?;
    Ok(Into::Directory { target: real })
}

fn outside(settings: &Settings, target: &Path) -> BoundsFault {
    let allowed: Vec<_> = std::iter::once(&settings.pool_path)
        .chain(&settings.restore_into)
        .map(|root| root.display().to_string())
        .collect();
    BoundsFault::Outside {
        target: target.to_owned(),
        allowed: allowed.join(", "),
    }
}

/// Whether there is an empty directory at `target`; fails when there is anything else.
pub(super) fn empty_or_absent(target: &Path) -> Result<Found, BoundsFault> {
    let unreadable = |source| BoundsFault::Unreadable {
        path: target.to_owned(),
        source,
    };
    let target_is = |make: fn(PathBuf) -> BoundsFault| Err(make(target.to_owned()));
    let found = match target.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => return Err(unreadable(source)),
    };
    if !found.is_dir() {
        return target_is(|target| BoundsFault::NoDirectory { target });
    }
    if !entries(target)?.is_empty() {
        return target_is(|target| BoundsFault::NotEmpty { target });
    }
    let parent = target
        .parent()
        .unwrap_or(target)
        .symlink_metadata()
        .map_err(unreadable)?;
    match parent.dev() == found.dev() {
        true => Ok(Found::EmptyDirectory),
        false => target_is(|target| BoundsFault::MountPoint { target }),
    }
}

/// What is at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    EmptyDirectory,
}

fn entries(folder: &Path) -> Result<Vec<std::ffi::OsString>, BoundsFault> {
    let unreadable = |source| BoundsFault::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let names = std::fs::read_dir(folder).map_err(unreadable)?;
    names
        .map(|entry| entry.map(|entry| entry.file_name()).map_err(unreadable))
        .collect()
}

/// Whether `needed` fits on the file system of `path`.
pub(super) fn room(path: &Path, needed: Bytes) -> Result<(), BoundsFault> {
    let state = statvfs(path).map_err(|errno| BoundsFault::Unreadable {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let free = Bytes(state.blocks_available().saturating_mul(state.fragment_size()));
    match free >= needed {
        true => Ok(()),
        false => Err(BoundsFault::Room {
            path: path.to_owned(),
            free,
            needed,
        }),
    }
}
