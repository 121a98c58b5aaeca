//! Folders that are held open, so that whoever may write to the pool cannot put a symbolic link in the way of what
//! runs as root: what a path leads to may change between two looks, what is open does not.

use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use hostler_common::error::Retry;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::{Mode, fstatat, mkdirat};

use super::super::OWN_FOLDER;
use super::fetch::io_error;
use super::{Into, Restore};
use crate::executor::step::StepError;

/// A folder, and its path in words.
#[derive(Debug)]
pub(super) struct Held {
    folder: File,
    shown: PathBuf,
}

impl Held {
    /// Where the staging folder of `job` is, or is to be. Fails when the pool is not mounted.
    pub(super) fn above_staging(job: &Restore) -> Result<Self, StepError> {
        job.is_mounted()?;
        let above = job.staging.parent().unwrap_or(&job.staging);
        match &job.decision.into {
            Into::Directory { .. } => Self::open(AT_FDCWD, above, above),
            Into::EmptyPool | Into::Places { .. } => Self::own(&job.inner.settings.pool_path),
        }
    }

    /// The folder at the pool's root that is Hostler's own. Users of the pool may write to its root, so what has the
    /// name may be a trap.
    fn own(pool: &Path) -> Result<Self, StepError> {
        let shown = pool.join(OWN_FOLDER);
        // The configuration's own path may lead over links.
        let real = pool
            .canonicalize()
            .map_err(|error| io_error("open", pool, &error))?;
        let root = Self::open(AT_FDCWD, &real, pool)?;
        match mkdirat(&root.folder, OWN_FOLDER, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io_error("make", &shown, &errno.into())),
        }
        let trap = || {
            StepError::message(
                format!(
                    "{} must be a folder of root with mode 0700; move what is there elsewhere",
                    shown.display()
                ),
                Retry::Never,
            )
        };
        let own = root.inside(OsStr::new(OWN_FOLDER)).map_err(|_| trap())?;
        let found = own.metadata()?;
        let ours = found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0;
        ours.then_some(own).ok_or_else(trap)
    }

    /// The folder `name` in it, which is not a link.
    pub(super) fn inside(&self, name: &OsStr) -> Result<Self, StepError> {
        Self::open(&self.folder, Path::new(name), &self.shown.join(name))
    }

    /// Makes the folder `name` in it, for nobody but us.
    pub(super) fn make(&self, name: &OsStr) -> Result<Self, StepError> {
        mkdirat(&self.folder, name, Mode::S_IRWXU)
            .map_err(|errno| io_error("make", &self.shown.join(name), &errno.into()))?;
        self.inside(name)
    }

    /// Whether it holds `name`.
    pub(super) fn holds(&self, name: &OsStr) -> Result<bool, StepError> {
        match fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(io_error("look at", &self.shown.join(name), &errno.into())),
        }
    }

    /// Renames `from` in it to `to`, over an empty directory or nothing; the kernel refuses anything else.
    pub(super) fn rename(&self, from: &OsStr, to: &OsStr) -> Result<(), StepError> {
        renameat2(&self.folder, from, &self.folder, to, RenameFlags::empty())
            .map_err(|errno| io_error("put the files into", &self.shown.join(to), &errno.into()))
    }

    pub(super) fn metadata(&self) -> Result<Metadata, StepError> {
        let found = self.folder.metadata();
        found.map_err(|error| io_error("look at", &self.shown, &error))
    }

    /// Gives it the owner and the mode of `like`.
    pub(super) fn dress(&self, like: &Metadata) -> Result<(), StepError> {
        let dressed = fchown(&self.folder, Some(like.uid()), Some(like.gid())).and_then(|()| {
            let mode = Permissions::from_mode(like.mode() & 0o7777);
            self.folder.set_permissions(mode)
        });
        dressed.map_err(|error| io_error("set the mode of", &self.shown, &error))
    }

    /// Writes its whole file system out.
    pub(super) fn sync(&self) -> Result<(), StepError> {
        let synced = nix::unistd::syncfs(&self.folder);
        synced.map_err(|errno| io_error("write out", &self.shown, &errno.into()))
    }

    /// A path that leads to it for this process and its children, whatever becomes of the one that it has.
    pub(super) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.folder.as_raw_fd()
        ))
    }

    /// Opens `path`, in which nothing is a link.
    pub(super) fn open(at: impl std::os::fd::AsFd, path: &Path, shown: &Path) -> Result<Self, StepError> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(at, path, how) {
            Ok(folder) => Ok(Self {
                folder: folder.into(),
                shown: shown.to_owned(),
            }),
            Err(Errno::ELOOP) => Err(StepError::message(
                format!(
                    "{} leads over a symbolic link that was not there before; nothing is written over it",
                    shown.display()
                ),
                Retry::Never,
            )),
            Err(errno) => Err(io_error("open", shown, &io::Error::from(errno))),
        }
    }
}
