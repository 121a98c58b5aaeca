//! Backups of the pool with restic, into a repository that any restic can read.
//!
//! Each operation is planned here into steps: create (`create.rs`), verify, restore, delete. The repository itself
//! is never made, and never trusted to hold what was put into it before it was read back.
//!
//! What a backup keeps is what restic 0.14 keeps: files with their holes written out as zeros (a sparse file comes
//! back at its full size), hard links, symbolic links, devices and pipes, owner, mode and times, and extended attributes, POSIX
//! ACLs among them. It restores no sockets, no btrfs properties of files (as no copy-on-write) and no shared extents.
//! A name that is not UTF-8 is kept, but cannot be named in a request. Files lie at the root of restic's snapshot, so that
//! a plain `restic restore` gives them without the path of the snapshot of the pool. The folder `.hostler` at the pool's root is left out.
//!
//! Each snapshot of a btrfs has a device number of its own, which restic before 0.17 keeps with every file: so each backup
//! stores the directories anew, though none of the files.
//!
//! Tags tell what a backup is: `hostler`, `pool:NAME`, `operation:ID`, and `files:N` and `bytes:N`, which were
//! counted in the pool's own snapshot, not by restic. Nothing without the first two is ever listed or touched.

mod count;
mod create;
mod delete;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzed;
mod list;
mod marks;
mod named;
mod pace;
mod restic;
mod restore;
mod verify;

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::id::PoolName;
use hostler_common::operation::{BackupId, ReadShare, Request};
use hostler_common::rpc::hostler::agent::v1::{Backup, DryRunAnswer};
use serde::Deserialize;
use serde_json::Value;

use self::marks::Mark;
pub use self::restic::fault::BackupsFault;
use self::restic::fault::ResticFault;
use self::restic::messages::Snapshot;
use self::restic::program::Restic;
use self::restic::repository::{Ear, Repository};
use crate::executor::plan::{Job, Planned};
use crate::storage::Backend;

/// The folder at a pool's root that is Hostler's own.
const OWN_FOLDER: &str = ".hostler";

/// Backups that are named when others are damaged.
const NAMED: usize = 10;

/// How long a lock of somebody who may live is waited for. restic itself regards one that nobody has renewed for
/// 30 minutes as stale, so a host that died in the middle of a backup does not stop the next one.
const PATIENCE: Duration = Duration::from_secs(35 * 60);

/// A text that is neither shown nor logged.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Which backups are kept, by restic's rules. What any rule keeps, stays.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many. At least one is kept in any case.
    pub last: u32,
    /// One for each of the last so many hours that have one.
    pub hourly: u32,
    /// The same by days.
    pub daily: u32,
    /// The same by weeks.
    pub weekly: u32,
    /// The same by months.
    pub monthly: u32,
    /// The same by years.
    pub yearly: u32,
}

impl Keep {
    fn rules(self) -> Vec<String> {
        [
            ("last", self.last.max(1)),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .flat_map(|(rule, count)| [format!("--keep-{rule}"), count.to_string()])
        .collect()
    }
}

/// Where backups go, and what is done with them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The pool's name.
    pub pool: PoolName,
    /// Where it is mounted.
    pub pool_path: PathBuf,
    /// restic's address of the repository. It may hold credentials, and is never shown as it is.
    pub repository: String,
    /// The file that holds the repository's password.
    pub password_file: PathBuf,
    /// What restic's backend needs, as `AWS_SECRET_ACCESS_KEY`.
    pub environment: Vec<(String, Secret)>,
    /// How much of the repository is read back after each backup.
    pub read_back: ReadShare,
    /// Which backups are kept.
    pub keep: Keep,
    /// Folders, besides the pool, below which files may be restored.
    pub restore_into: Vec<PathBuf>,
    /// restic's cache. It may be lost, and should not be in the pool.
    pub cache_dir: PathBuf,
}

/// The backups of one pool.
#[derive(Clone)]
pub struct Backups(Arc<Inner>);

struct Inner {
    settings: Settings,
    backend: Arc<dyn Backend>,
    repository: Repository,
}

impl Inner {
    /// The pool's backups, oldest first, without those that were never found to be good.
    fn backups(&self, ear: &Ear<'_>) -> Result<Vec<Snapshot>, ResticFault> {
        Ok(self.without_doubtful(self.repository.backups(ear)?))
    }

    /// The same for whoever asks for all or for the latest: fails when a snapshot is damaged, which may be one of them.
    fn all_backups(&self, ear: &Ear<'_>) -> Result<Vec<Snapshot>, ResticFault> {
        let (backups, damaged) = self.repository.readable(ear)?;
        let backups = self.without_doubtful(backups);
        match damaged {
            None => Ok(backups),
            Some(said) => Err(ResticFault::PassedOver {
                repository: self.repository.for_people().to_owned(),
                said,
                left: backups
                    .iter()
                    .rev()
                    .take(NAMED)
                    .map(Snapshot::described)
                    .collect(),
            }),
        }
    }

    fn without_doubtful(&self, mut backups: Vec<Snapshot>) -> Vec<Snapshot> {
        let doubtful = Mark::Unchecked.all(&self.settings);
        backups.retain(|backup| {
            let operation = backup.tag("operation:").unwrap_or_default();
            !doubtful.iter().any(|doubtful| doubtful == operation)
        });
        backups
    }
}

impl Backups {
    /// Finds restic and asks for its version. The repository is not looked at: it may come back later.
    ///
    /// # Errors
    /// When this host cannot make backups at all.
    pub fn new(settings: Settings, backend: Arc<dyn Backend>) -> Result<Self, BackupsFault> {
        Self::patient(settings, backend, PATIENCE)
    }

    /// The same, but a lock of somebody who may live is waited for only as long as `patience`.
    ///
    /// # Errors
    /// When this host cannot make backups at all.
    pub fn patient(
        settings: Settings,
        backend: Arc<dyn Backend>,
        patience: Duration,
    ) -> Result<Self, BackupsFault> {
        let ours = |name: &str| {
            [
                "RESTIC_REPOSITORY",
                "RESTIC_PASSWORD",
                "RESTIC_CACHE_DIR",
                "RESTIC_PROGRESS_FPS",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        };
        if let Some((name, _)) = settings.environment.iter().find(|(name, _)| ours(name)) {
            return Err(BackupsFault::Variable { name: name.clone() });
        }
        let restic = Restic::find(&settings)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&settings.cache_dir)
            .map_err(|source| BackupsFault::Cache {
                path: settings.cache_dir.clone(),
                source,
            })?;
        let repository = Repository::new(restic, &settings, patience);
        Ok(Self(Arc::new(Inner {
            settings,
            backend,
            repository,
        })))
    }

    /// Where backups go, without credentials.
    pub fn repository_for_people(&self) -> String {
        self.0.repository.for_people().to_owned()
    }

    /// Plans what has to do with backups. A restore asks the repository which backup is meant, and it blocks.
    ///
    /// # Errors
    /// One line, when it cannot be done, or is none of these.
    pub fn plan(&self, job: &Job, decided: Option<&Value>) -> Result<Planned, String> {
        match &job.request {
            Request::CreateBackup => Ok(create::plan(&self.0, job.operation)),
            Request::VerifyBackup { id, read } => Ok(verify::plan(&self.0, id.clone(), *read)),
            Request::RestoreBackup { id, into, paths } => {
                restore::plan(&self.0, job.operation, (id, into, paths), decided)
            }
            Request::DeleteBackup { id } => delete::plan(&self.0, id, decided),
            other @ (Request::CreateHypervisor(_)
            | Request::DestroyHypervisor(_)
            | Request::ExpandStorage { .. }
            | Request::ShrinkStorage { .. }) => {
                Err(format!("{} has nothing to do with backups", other.kind().name()))
            }
        }
    }

    /// The pool's backups, oldest first. It blocks.
    ///
    /// # Errors
    /// One line.
    pub fn list(&self) -> Result<Vec<Backup>, String> {
        list::list(&self.0)
    }

    /// What a delete would do. It blocks.
    ///
    /// # Errors
    /// One line, when it would be refused.
    pub fn dry_run_delete(&self, id: &BackupId) -> Result<DryRunAnswer, String> {
        delete::dry_run(&self.0, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_ever_keeps_nothing() {
        assert_eq!(Keep::default().rules(), ["--keep-last", "1"]);
        let keep = Keep {
            last: 7,
            weekly: 4,
            ..Keep::default()
        };
        assert_eq!(keep.rules(), ["--keep-last", "7", "--keep-weekly", "4"]);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::from("s3cret".to_owned());
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert_eq!(secret.expose(), "s3cret");
    }
}
