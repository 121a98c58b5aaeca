//! The last steps of a restore into the pool: each file by a rename to its place, what was there aside.
//!
//! The staging folder is the record of how far it is. `new/PATH`: not in place yet. `old/PATH`: what was at its place.
//! `made`: directories that did not exist and were made for them. `names`: the entries, when everything is restored.
//! The invariant: every one of them is written before what it records, and the folder is given another name before it
//! is removed, so that nothing is ever undone from half a record.
//!
//! Inside the pool every step of a path is opened without following links, so that a link in the pool cannot lead out of it.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Retry;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat2, renameat2};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::super::OWN_FOLDER;
use super::super::restic::repository::DAYS;
use super::fetch::{io_error, remove};
use super::held::Held;
use super::swap::sync;
use super::{Existing, Into, Restore};
use crate::executor::step::{Before, Progress, Step, StepError};

/// Names in an error.
const NAMES: usize = 5;

/// Fails when one of the places cannot be restored to. Changes nothing.
pub(super) fn are_free(job: &Restore, existing: Existing) -> Result<(), StepError> {
    let pool = Pool::open(job)?;
    let mut taken = Vec::new();
    for path in job.selection.paths() {
        if path.starts_with(OWN_FOLDER) {
            let text = format!("{} is in the pool's own folder", path.display());
            return Err(StepError::message(text, Retry::Never));
        }
        if let Some((parent, name)) = pool.parent_of(path)?
            && exists(&parent, name, path)?
        {
            taken.push(path.display().to_string());
        }
    }
    if taken.is_empty() || existing == Existing::Replaced {
        return Ok(());
    }
    let more = match taken.len().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {more} others"),
    };
    taken.truncate(NAMES);
    Err(StepError::message(
        format!(
            "{}{more}: there already; nothing was changed. Move it away, or restore with overwrite",
            taken.join(", ")
        ),
        Retry::Never,
    ))
}

/// Moves the files to their places.
pub(super) struct Put(pub(super) Arc<Restore>);

impl Step for Put {
    fn name(&self) -> String {
        format!(
            "put the files in their places in pool {}",
            self.0.inner.settings.pool
        )
    }

    /// Making it durable may write out all that was restored.
    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let job = &*self.0;
        let pool = Pool::open(job)?;
        Held::above_staging(job)?;
        let paths = match recorded(job)? {
            Some(paths) => paths,
            None => record(job)?,
        };
        sync(&job.staging)?;
        for path in &paths {
            progress.check_cancelled()?;
            if is_there(&job.fresh().join(path))? {
                pool.put(job, path)?;
            }
        }
        sync(&job.inner.settings.pool_path)
    }

    fn undo(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let job = &*self.0;
        job.is_mounted()?;
        // Without staging nothing was moved, or everything is in place for good.
        if !is_there(&job.staging)? {
            let done = done(job);
            if is_there(&done)? {
                progress.say("the restored files are in their places already and stay");
                remove(&done)?;
            }
            return Ok(());
        }
        let pool = Pool::open(job)?;
        Held::above_staging(job)?;
        for path in recorded(job)?.unwrap_or_default().iter().rev() {
            pool.take_back(job, path)?;
        }
        pool.remove_made(job)?;
        sync(&job.inner.settings.pool_path)
    }
}

/// Removes what was replaced. What cannot be removed is only in the way.
pub(super) struct Clear(pub(super) Arc<Restore>);

impl Step for Clear {
    fn name(&self) -> String {
        "remove what was replaced".to_owned()
    }

    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let staging = &self.0.staging;
        let done = done(&self.0);
        if is_there(staging)? {
            std::fs::rename(staging, &done).map_err(|error| io_error("rename", staging, &error))?;
        }
        let mut words = self.0.conclusion();
        if let Err(error) = remove(&done) {
            words = format!("{words}; what was replaced still takes room: {error}");
            progress.say(format!("warning: {error}"));
        }
        progress.conclude(words);
        Ok(())
    }

    fn undo(&self, _before: Before, _progress: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}

/// The staging folder when everything is in place, until it is removed.
fn done(job: &Restore) -> PathBuf {
    job.staging.with_extension("done")
}

/// What is put in place, in order; None when everything is restored and nothing was moved yet.
fn recorded(job: &Restore) -> Result<Option<Vec<PathBuf>>, StepError> {
    if let Into::Places { .. } = job.decision.into {
        return Ok(Some(job.selection.paths().to_vec()));
    }
    read_list(&job.staging.join("names"))
}

/// The entries at the root of all that was restored.
fn record(job: &Restore) -> Result<Vec<PathBuf>, StepError> {
    let fresh = job.fresh();
    let names = std::fs::read_dir(&fresh).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
            .collect::<io::Result<Vec<_>>>()
    });
    let names = names.map_err(|error| io_error("read", &fresh, &error))?;
    write_list(&job.staging.join("names"), &names)?;
    Ok(names)
}

/// None when there is no such list.
fn read_list(file: &Path) -> Result<Option<Vec<PathBuf>>, StepError> {
    match std::fs::read(file) {
        Ok(paths) => Ok(Some(
            paths
                .split(|byte| *byte == 0)
                .filter(|path| !path.is_empty())
                .map(|path| PathBuf::from(OsString::from_vec(path.to_vec())))
                .collect(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", file, &error)),
    }
}

/// Durable, whole or not at all.
fn write_list(file: &Path, paths: &[PathBuf]) -> Result<(), StepError> {
    let bytes: Vec<&[u8]> = paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
    let part = file.with_extension("part");
    let written = File::create(&part)
        .and_then(|mut opened| {
            opened.write_all(&bytes.join(&0))?;
            opened.sync_all()
        })
        .and_then(|()| std::fs::rename(&part, file));
    written.map_err(|error| io_error("write", file, &error))
}

/// The pool's root, opened.
struct Pool(OwnedFd);

impl Pool {
    fn open(job: &Restore) -> Result<Self, StepError> {
        let path = &job.inner.settings.pool_path;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty())
            .map(Self)
            .map_err(|errno| io_error("open", path, &errno.into()))
    }

    /// The directory that `path` is in, and its name there. None when there is no such directory.
    fn parent_of<'p>(&self, path: &'p Path) -> Result<Option<(OwnedFd, &'p OsStr)>, StepError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            let text = format!("{:?} is no place in the pool", path.display().to_string());
            return Err(StepError::message(text, Retry::Never));
        };
        match self.folder(parent) {
            Ok(folder) => Ok(Some((folder, name))),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP | Errno::EXDEV) => Err(StepError::message(
                format!(
                    "the place of {} leads over a symbolic link; restore into a directory instead",
                    path.display()
                ),
                Retry::Never,
            )),
            Err(Errno::ENOTDIR) => Err(StepError::message(
                format!(
                    "above the place of {} there is a file, not a directory",
                    path.display()
                ),
                Retry::Never,
            )),
            Err(errno) => Err(io_error("open", parent, &errno.into())),
        }
    }

    fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(&self.0, path, how)
    }

    fn put(&self, job: &Restore, path: &Path) -> Result<(), StepError> {
        self.make_parents(job, path)?;
        let (parent, name) = self
            .parent_of(path)?
            .ok_or_else(|| io_error("open the folder of", path, &io::ErrorKind::NotFound.into()))?;
        if exists(&parent, name, path)? {
            let replaced = matches!(
                job.decision.into,
                Into::Places {
                    existing: Existing::Replaced
                }
            );
            let aside = job.staging.join("old").join(path);
            if !replaced || is_there(&aside)? {
                let text = format!("{} came into being while its backup was read", path.display());
                return Err(StepError::message(text, Retry::Never));
            }
            make_above(&aside)?;
            renameat2(&parent, name, AT_FDCWD, &aside, RenameFlags::RENAME_NOREPLACE)
                .map_err(|errno| io_error("move aside", path, &errno.into()))?;
        }
        let fresh = job.fresh().join(path);
        renameat2(AT_FDCWD, &fresh, &parent, name, RenameFlags::RENAME_NOREPLACE)
            .map_err(|errno| io_error("put in place", path, &errno.into()))
    }

    /// Makes the directories above `path` that are missing, as they are in the backup.
    fn make_parents(&self, job: &Restore, path: &Path) -> Result<(), StepError> {
        let mut above: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        above.reverse();
        let list = job.staging.join("made");
        let mut made = read_list(&list)?.unwrap_or_default();
        for folder in above {
            let fault = |errno: Errno| io_error("make", folder, &errno.into());
            let Some((parent, name)) = self.parent_of(folder)? else {
                return Err(fault(Errno::ENOENT));
            };
            if exists(&parent, name, folder)? {
                // One that was made before a crash may not have its owner yet.
                if !made.iter().any(|known| known == folder) {
                    continue;
                }
            } else {
                made.push(folder.to_owned());
                write_list(&list, &made)?;
                mkdirat(&parent, name, Mode::S_IRWXU).map_err(fault)?;
            }
            let like = job.fresh().join(folder);
            let like = like
                .symlink_metadata()
                .map_err(|error| io_error("look at", &like, &error))?;
            // Whoever owns the folder above may have put something else in its place.
            Held::open(&parent, Path::new(name), folder)?.dress(&like)?;
        }
        Ok(())
    }

    fn take_back(&self, job: &Restore, path: &Path) -> Result<(), StepError> {
        let fault = |errno: Errno| io_error("take back", path, &errno.into());
        let aside = job.staging.join("old").join(path);
        // Nothing of it may be removed with the staging folder, or the only copy would go.
        let kept = |why: &str| {
            let text = format!(
                "cannot put {} back: {why}; what was there is kept at {}",
                path.display(),
                aside.display()
            );
            StepError::message(text, Retry::Never)
        };
        let Some((parent, name)) = self.parent_of(path)? else {
            return match is_there(&aside)? {
                true => Err(kept("its directory is gone")),
                false => Ok(()),
            };
        };
        let fresh = job.fresh().join(path);
        if !is_there(&fresh)? && exists(&parent, name, path)? {
            make_above(&fresh)?;
            renameat2(&parent, name, AT_FDCWD, &fresh, RenameFlags::RENAME_NOREPLACE).map_err(fault)?;
        }
        if is_there(&aside)? {
            renameat2(AT_FDCWD, &aside, &parent, name, RenameFlags::RENAME_NOREPLACE)
                .map_err(|errno| kept(&io::Error::from(errno).to_string()))?;
        }
        Ok(())
    }

    /// Removes the directories that were made, where nothing else has come into them.
    fn remove_made(&self, job: &Restore) -> Result<(), StepError> {
        let list = job.staging.join("made");
        let mut made = read_list(&list)?.unwrap_or_default();
        // The deepest first.
        made.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for path in made {
            let Some((parent, name)) = self.parent_of(&path)? else {
                continue;
            };
            match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => {}
                Err(errno) => return Err(io_error("remove", &path, &errno.into())),
            }
        }
        write_list(&list, &[])
    }
}

fn exists(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool, StepError> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(io_error("look at", path, &errno.into())),
    }
}

fn is_there(path: &Path) -> Result<bool, StepError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(io_error("look at", path, &error)),
    }
}

fn make_above(path: &Path) -> Result<(), StepError> {
    let Some(above) = path.parent() else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(above)
        .map_err(|error| io_error("make", above, &error))
}
