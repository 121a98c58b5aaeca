//! The last step of a restore into a directory: one rename.
//!
//! The staging folder tells whether it has happened: it is there before and gone after.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Retry;

use super::super::restic::repository::DAYS;
use super::Restore;
use super::bounds::{self, Found};
use super::fetch::io_error;
use super::held::Held;
use crate::executor::step::{Before, Progress, Step, StepError};

pub(super) struct Swap {
    pub(super) job: Arc<Restore>,
    pub(super) target: PathBuf,
}

impl Step for Swap {
    fn name(&self) -> String {
        format!("put the files into {}", self.target.display())
    }

    /// Making it durable may write out all that was restored.
    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        match bounds::empty_or_absent(&self.target) {
            Ok(Found::Nothing) => Ok(Before::Absent),
            Ok(Found::EmptyDirectory) => Ok(Before::Inactive),
            Err(fault) => Err(StepError::new(&fault, Retry::Never)),
        }
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let parent = Held::above_staging(&self.job)?;
        let (staging, target) = (self.job.staging_name(), self.target_name());
        if parent.holds(staging)? {
            // The backup does not know its own root. An empty directory that was there knows best.
            let like = match parent.holds(target)? {
                true => parent.inside(target)?.metadata()?,
                false => {
                    let pool = &self.job.inner.settings.pool_path;
                    pool.metadata()
                        .map_err(|error| io_error("look at", pool, &error))?
                }
            };
            let fresh = parent.inside(staging)?;
            fresh.dress(&like)?;
            fresh.sync()?;
            parent.rename(staging, target)?;
        }
        parent.sync()?;
        progress.conclude(self.job.conclusion());
        Ok(())
    }

    fn undo(&self, before: Before, _progress: &Progress) -> Result<(), StepError> {
        let parent = Held::above_staging(&self.job)?;
        let (staging, target) = (self.job.staging_name(), self.target_name());
        if parent.holds(staging)? || !parent.holds(target)? {
            return Ok(());
        }
        parent.rename(target, staging)?;
        if before == Before::Inactive {
            let like = parent.inside(staging)?.metadata()?;
            parent.make(target)?.dress(&like)?;
        }
        Ok(())
    }
}

impl Swap {
    fn target_name(&self) -> &OsStr {
        self.target.file_name().unwrap_or_default()
    }
}

/// Writes the whole file system of `path` out.
pub(super) fn sync(path: &Path) -> Result<(), StepError> {
    let synced = File::open(path).and_then(|file| nix::unistd::syncfs(file).map_err(io::Error::from));
    synced.map_err(|error| io_error("write out", path, &error))
}
