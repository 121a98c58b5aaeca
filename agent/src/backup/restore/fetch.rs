//! The first two steps of a restore: whether it can be done at all, and restic's part, into a place of its own.
//!
//! After a crash the place is emptied and filled again: restic 0.14 does not tell which files it had finished.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_common::error::{Chain, Retry};

use super::super::count::{self, Count};
use super::super::pace::{Pace, written_by_children};
use super::super::restic::repository::{Call, DAYS, Ear};
use super::held::Held;
use super::{Into, NEW, Restore, bounds, places};
use crate::executor::step::{Before, Progress, Step, StepError};

/// Looks at the backup, the places and the room, and changes nothing.
pub(super) struct Check(pub(super) Arc<Restore>);

impl Step for Check {
    fn name(&self) -> String {
        format!("check backup {} and the place for its files", self.0.short())
    }

    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let (job, ear) = (&self.0, Ear::of(progress));
        job.is_mounted()?;
        job.locks.begin(&job.inner.repository, &ear)?;
        let total = job.total(&ear)?;
        let refused = |fault: bounds::BoundsFault| StepError::new(&fault, Retry::Never);
        match &job.decision.into {
            Into::Directory { target } => bounds::empty_or_absent(target).map(|_| ()).map_err(refused)?,
            // A pool that is no longer empty shows when the files are put in place.
            Into::EmptyPool => {}
            Into::Places { existing } => places::are_free(job, *existing)?,
        }
        bounds::room(job.ground(), Bytes(total.bytes)).map_err(refused)?;
        progress.say(format!("to restore: {total}"));
        Ok(())
    }

    fn undo(&self, _before: Before, _progress: &Progress) -> Result<(), StepError> {
        self.0.locks.end(&self.0.inner.repository);
        Ok(())
    }
}

/// Restores into the staging folder, and holds what is there against the backup.
pub(super) struct Fetch(pub(super) Arc<Restore>);

impl Step for Fetch {
    fn name(&self) -> String {
        format!("read the files from backup {}", self.0.short())
    }

    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Absent)
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let (job, ear) = (&self.0, Ear::of(progress));
        job.locks.go_on(&job.inner.repository, &ear)?;
        let total = job.total(&ear)?;
        let above = Held::above_staging(job)?;
        remove(&job.staging)?;
        let mut fresh = above.make(job.staging_name())?;
        if job.fresh() != job.staging {
            fresh = fresh.make(OsStr::new(NEW))?;
        }
        // restic follows links in its target's path, and its own folder is not reached by any.
        let mut arguments: Vec<String> = ["restore", &job.decision.backup, "--verify", "--target"]
            .map(str::to_owned)
            .into();
        arguments.push("/proc/self/cwd".to_owned());
        arguments.extend(job.selection.includes());
        let mut pace = Pace::of("restore".to_owned(), total);
        let mut tick = || {
            let written = || written_by_children().map(|bytes| Count { files: 0, bytes });
            pace.due(written)
                .into_iter()
                .for_each(|measure| progress.measure(measure));
        };
        let call = Call::of("restore", &arguments)
            .folder(fresh.path())
            .tick(&mut tick);
        job.inner.repository.run(call, &ear)?;
        let is = count::walk(&fresh.path(), None, &ear)?;
        match is == total {
            true => Ok(()),
            false => Err(StepError::message(
                format!("restic restored {is}, and the backup holds {total}"),
                Retry::Never,
            )),
        }
    }

    fn undo(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let staging = &self.0.staging;
        if let Err(fault) = self.0.is_mounted() {
            // Nothing that anybody uses was changed: it is in the way, and no more.
            progress.say(format!(
                "what was read of the backup may stay in {}, remove it by hand: {}",
                staging.display(),
                Chain(&fault)
            ));
            return Ok(());
        }
        remove(staging)
    }
}

/// Removes a folder and all in it, if it is there. It does not follow links.
pub(super) fn remove(folder: &Path) -> Result<(), StepError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder, &error)),
        _ => Ok(()),
    }
}

pub(super) fn io_error(verb: &str, path: &Path, error: &io::Error) -> StepError {
    StepError::message(format!("cannot {verb} {}: {error}", path.display()), Retry::Never)
}
