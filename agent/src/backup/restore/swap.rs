//! The last step of a restore into a directory: one rename.
//!
//! The staging folder tells whether it has happened: it is there before and gone after.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Retry;

use super::super::restic::repository::DAYS;
use super::Restore;
use super::bounds::{self, Found};
use super::fetch::io_error;
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
        let staging = &self.job.staging;
        if staging.exists() {
            // The backup does not know its own root. An empty directory that was there knows best.
            let like = match self.target.is_dir() {
                true => &self.target,
                false => &self.job.inner.settings.pool_path,
            };
            dress(staging, like)?;
            sync(staging)?;
            // Over an empty directory or nothing; the kernel refuses anything else.
            std::fs::rename(staging, &self.target)
                .map_err(|error| io_error("put the files into", &self.target, &error))?;
        }
        if let Some(parent) = self.target.parent() {
            sync(parent)?;
        }
        progress.conclude(self.job.conclusion());
        Ok(())
    }

    fn undo(&self, before: Before, _progress: &Progress) -> Result<(), StepError> {
        let staging = &self.job.staging;
        if staging.exists() || !self.target.exists() {
            return Ok(());
        }
        std::fs::rename(&self.target, staging)
            .map_err(|error| io_error("take back", &self.target, &error))?;
        if before == Before::Inactive {
            std::fs::create_dir(&self.target).map_err(|error| io_error("make", &self.target, &error))?;
            dress(&self.target, staging)?;
        }
        Ok(())
    }
}

/// Gives `folder` the owner and the mode of `like`.
fn dress(folder: &Path, like: &Path) -> Result<(), StepError> {
    let dressed = || -> io::Result<()> {
        let like = like.metadata()?;
        std::os::unix::fs::chown(folder, Some(like.uid()), Some(like.gid()))?;
        std::fs::set_permissions(folder, Permissions::from_mode(like.mode() & 0o7777))
    };
    dressed().map_err(|error| io_error("set the mode of", folder, &error))
}

/// Writes the whole file system of `path` out.
pub(super) fn sync(path: &Path) -> Result<(), StepError> {
    let synced = File::open(path).and_then(|file| nix::unistd::syncfs(file).map_err(io::Error::from));
    synced.map_err(|error| io_error("write out", path, &error))
}
