//! Brings files back: first whole and verified into a place of their own, then by renames to where they belong.
//!
//! Until the renames nothing that anybody uses has changed; they are undone by renames back. Where files may go is
//! decided in `bounds.rs`, once, before anything is read.

mod bounds;
mod fetch;
mod held;
mod places;
mod selection;
mod swap;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hostler_common::error::Chain;
use hostler_common::id::OperationId;
use hostler_common::operation::{BackupId, PoolPath, RestoreInto};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::selection::Selection;
use super::count::Count;
use super::restic::locks::Sweep;
use super::restic::repository::Ear;
use super::{Inner, OWN_FOLDER, named};
use crate::executor::plan::Planned;
use crate::executor::step::Step;
use crate::storage::PoolFault;

/// In the staging folder: what is not in its place yet.
const NEW: &str = "new";

/// What was decided before the first step.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Decision {
    /// The backup's id in full: "latest" may soon be another.
    backup: String,
    into: Into,
}

/// Where the files go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Into {
    /// A directory that takes the place of `target`, which is empty or absent.
    Directory { target: PathBuf },
    /// Everything, into the pool's root, which holds nothing.
    EmptyPool,
    /// To their places in the pool.
    Places { existing: Existing },
}

/// What becomes of a file that is where one is to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Existing {
    /// The restore fails.
    Stays,
    /// It is replaced; a directory as a whole.
    Replaced,
}

pub(super) fn plan(
    inner: &Arc<Inner>,
    operation: OperationId,
    (id, into, paths): (&BackupId, &RestoreInto, &[PoolPath]),
    decided: Option<&Value>,
) -> Result<Planned, String> {
    let decision = match decided {
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|error| format!("what was decided is not understood: {error}"))?,
        None => decide(inner, id, into)?,
    };
    let staging = match &decision.into {
        Into::Directory { target } => target.with_file_name(format!(".hostler-restore-{operation}")),
        Into::EmptyPool | Into::Places { .. } => inner
            .settings
            .pool_path
            .join(OWN_FOLDER)
            .join(format!("restore-{operation}")),
    };
    let decided = serde_json::to_value(&decision).map_err(|error| error.to_string())?;
    let job = Arc::new(Restore {
        inner: Arc::clone(inner),
        selection: Selection::of(paths),
        decision,
        staging,
        total: Mutex::new(None),
        locks: Sweep::default(),
    });
    let mut steps: Vec<Box<dyn Step>> = vec![
        Box::new(fetch::Check(Arc::clone(&job))),
        Box::new(fetch::Fetch(Arc::clone(&job))),
    ];
    match &job.decision.into {
        Into::Directory { target } => steps.push(Box::new(swap::Swap {
            job: Arc::clone(&job),
            target: target.clone(),
        })),
        Into::EmptyPool | Into::Places { .. } => {
            steps.push(Box::new(places::Put(Arc::clone(&job))));
            steps.push(Box::new(places::Clear(Arc::clone(&job))));
        }
    }
    Ok(Planned {
        success: format!("files of backup {} are restored", job.short()),
        steps,
        decided,
        says: vec![format!("restoring from backup {}", job.short())],
    })
}

fn decide(inner: &Inner, id: &BackupId, into: &RestoreInto) -> Result<Decision, String> {
    let into = match into {
        RestoreInto::Directory(target) => {
            bounds::directory(&inner.settings, target).map_err(|fault| Chain(&fault).to_string())?
        }
        RestoreInto::Places => Into::Places {
            existing: Existing::Stays,
        },
        RestoreInto::PlacesOverwriting => Into::Places {
            existing: Existing::Replaced,
        },
    };
    let backups = match id {
        // Of damaged ones nobody knows how old they are.
        BackupId::Latest => inner.all_backups(&Ear::none()),
        BackupId::Id(_) => inner.backups(&Ear::none()),
    };
    let backups = backups.map_err(|fault| Chain(&fault).to_string())?;
    let backup = named::find(&backups, id, &inner.settings.pool).map_err(|fault| fault.to_string())?;
    Ok(Decision {
        backup: backup.id.clone(),
        into,
    })
}

/// A restore, as its steps share it.
struct Restore {
    inner: Arc<Inner>,
    selection: Selection,
    decision: Decision,
    /// Where the files are until they are in place. On the same file system.
    staging: PathBuf,
    /// What is to be restored, once it was counted in this process.
    total: Mutex<Option<Count>>,
    locks: Sweep,
}

impl Restore {
    fn short(&self) -> &str {
        let id = &self.decision.backup;
        id.get(..8).unwrap_or(id)
    }

    fn staging_name(&self) -> &OsStr {
        self.staging.file_name().unwrap_or_default()
    }

    /// Where restic writes.
    fn fresh(&self) -> PathBuf {
        match self.decision.into {
            Into::Directory { .. } => self.staging.clone(),
            Into::EmptyPool | Into::Places { .. } => self.staging.join(NEW),
        }
    }

    /// A folder that is on the file system where the files go.
    fn ground(&self) -> &Path {
        match &self.decision.into {
            Into::Directory { target } => target.parent().unwrap_or(target),
            Into::EmptyPool | Into::Places { .. } => &self.inner.settings.pool_path,
        }
    }

    /// Fails when the files go into a pool that is not mounted: there is an empty directory then, on another disk. Asked
    /// anew by each step, since a reboot may lie between two.
    fn is_mounted(&self) -> Result<(), PoolFault> {
        let pool = &self.inner.settings.pool_path;
        let pool = pool.canonicalize().unwrap_or_else(|_| pool.clone());
        let ground = self.ground().canonicalize();
        match ground.is_ok_and(|ground| ground.starts_with(&pool)) {
            true => self.inner.backend.look().map(|_| ()),
            false => Ok(()),
        }
    }

    fn known_total(&self) -> Option<Count> {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts in the backup, once.
    fn total(&self, ear: &Ear<'_>) -> Result<Count, selection::SelectionFault> {
        if let Some(total) = self.known_total() {
            return Ok(total);
        }
        let total = self
            .selection
            .count(&self.inner.repository, &self.decision.backup, ear)?;
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) = Some(total);
        Ok(total)
    }

    fn conclusion(&self) -> String {
        let what = self
            .known_total()
            .map_or_else(|| "files".to_owned(), |total| total.to_string());
        let place = match &self.decision.into {
            Into::Directory { target } => format!("into {}", target.display()),
            Into::EmptyPool => format!("into pool {}", self.inner.settings.pool),
            Into::Places { .. } => format!("to their places in pool {}", self.inner.settings.pool),
        };
        format!("restored {what} of backup {} {place}", self.short())
    }
}
