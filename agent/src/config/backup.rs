//! `[storage.backup]`: where backups of the pool go, and how long they are kept.
//!
//! Passwords are not part of it, only the files that hold them; `storage/setup.rs` reads these.

use std::path::{Path, PathBuf};

use hostler_common::operation::{PoolPath, ReadShare};
use serde::{Deserialize, Deserializer};

use super::AbsolutePath;
use super::storage::percent;

/// More backups by one rule than anybody keeps.
const KEPT_AT_MOST: u32 = 10_000;
/// How restic's own backends begin (`restic help backup`, "Preparing a new repository" in its manual).
const BACKENDS: [&str; 9] = [
    "sftp:", "rest:", "s3:", "b2:", "azure:", "gs:", "swift:", "rclone:", "local:",
];

/// Where backups go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// The repository, as restic's `--repo` takes it.
    pub repository: RepositoryAddress,
    /// A file with its password.
    pub password_file: AbsolutePath,
    /// A file with `NAME=VALUE` lines that restic gets as its environment, for credentials.
    pub environment_file: Option<AbsolutePath>,
    /// How much of the repository's data is read back after each backup.
    #[serde(default = "five_percent", deserialize_with = "read_share")]
    pub read_back: ReadShare,
    /// Which backups stay.
    #[serde(default)]
    pub keep: KeepConfig,
    /// Nested subvolumes of the pool that no backup holds.
    #[serde(default)]
    pub left_out: Vec<PoolPath>,
    /// Directories besides the pool that a restore may fill.
    #[serde(default)]
    pub restore_into: Vec<AbsolutePath>,
    /// restic's cache. `restic-cache` in the state directory, when not given.
    pub cache_dir: Option<AbsolutePath>,
}

/// A repository, as restic's `--repo` takes it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RepositoryAddress(String);

impl RepositoryAddress {
    /// The text. It may hold credentials.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The directory, when it is one of this host.
    pub fn directory(&self) -> Option<&Path> {
        let path = Path::new(self.0.strip_prefix("local:").unwrap_or(&self.0));
        path.is_absolute().then_some(path)
    }
}

/// Without what may be a password.
impl std::fmt::Debug for RepositoryAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.directory() {
            Some(path) => write!(f, "{path:?}"),
            None => f.write_str("(an address)"),
        }
    }
}

impl TryFrom<String> for RepositoryAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = BACKENDS.iter().any(|backend| {
            text.strip_prefix(backend).is_some_and(|rest| match *backend {
                "local:" => rest.starts_with('/'),
                _ => !rest.is_empty(),
            })
        });
        match (text.starts_with('/') || known) && !text.chars().any(char::is_control) {
            true => Ok(Self(text)),
            // Not shown: it may hold a password.
            false => Err(format!(
                "the repository is neither a path from the root nor an address that begins with {}",
                BACKENDS.join(", ")
            )),
        }
    }
}

/// Which backups stay: what any rule keeps. A rule of 0 keeps nothing by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepConfig {
    /// The newest so many.
    #[serde(default = "one")]
    pub last: u32,
    /// One for each of the last so many hours that have one.
    #[serde(default)]
    pub hourly: u32,
    /// The same by days.
    #[serde(default)]
    pub daily: u32,
    /// The same by weeks.
    #[serde(default)]
    pub weekly: u32,
    /// The same by months.
    #[serde(default)]
    pub monthly: u32,
    /// The same by years.
    #[serde(default)]
    pub yearly: u32,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self {
            last: 1,
            hourly: 0,
            daily: 7,
            weekly: 4,
            monthly: 6,
            yearly: 0,
        }
    }
}

fn one() -> u32 {
    1
}

fn five_percent() -> ReadShare {
    ReadShare::try_from(5).unwrap_or(ReadShare::ALL)
}

/// As it is written, or through links as far as there are any now.
fn lies_in(path: &Path, pool: &Path) -> bool {
    let through_links = || Some(path.canonicalize().ok()?.starts_with(pool.canonicalize().ok()?));
    path.starts_with(pool) || through_links().unwrap_or(false)
}

fn read_share<'de, D: Deserializer<'de>>(from: D) -> Result<ReadShare, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(from)?;
    match percent(&text) {
        Some(percent @ 1..=100) => ReadShare::try_from(percent).map_err(D::Error::custom),
        _ => Err(D::Error::custom(format!(
            "{text:?} is not a share of 1 % to 100 %; write it as \"5 %\""
        ))),
    }
}

impl BackupConfig {
    /// `pool` is where the pool is mounted.
    pub(super) fn check(&self, pool: &Path) -> Result<(), String> {
        if let Some(directory) = self.repository.directory()
            && lies_in(directory, pool)
        {
            return Err(format!(
                "storage.backup.repository {} lies in the pool that it is to hold; a disk that fails would take both",
                directory.display()
            ));
        }
        if lies_in(&self.password_file, pool) {
            return Err(format!(
                "storage.backup.password_file {} lies in the pool; it could not be read when it is needed most",
                self.password_file
            ));
        }
        if let Some(path) = self.cache_dir.as_ref().filter(|path| lies_in(path, pool)) {
            return Err(format!(
                "storage.backup.cache_dir {path} lies in the pool, so that each backup would hold it"
            ));
        }
        self.check_keep()?;
        let into = |path: &AbsolutePath| path.parent().is_none();
        if self.restore_into.iter().any(into) {
            return Err("storage.backup.restore_into holds the root; name directories".into());
        }
        Ok(())
    }

    fn check_keep(&self) -> Result<(), String> {
        let KeepConfig {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        } = self.keep;
        if last == 0 {
            return Err(
                "storage.backup.keep.last is 0; at least 1, or a good backup could be removed with the rest"
                    .into(),
            );
        }
        let rules = [
            ("last", last),
            ("hourly", hourly),
            ("daily", daily),
            ("weekly", weekly),
            ("monthly", monthly),
            ("yearly", yearly),
        ];
        match rules.iter().find(|(_, count)| *count > KEPT_AT_MOST) {
            Some((rule, count)) => Err(format!(
                "storage.backup.keep.{rule} is {count}; at most {KEPT_AT_MOST} make sense"
            )),
            None => Ok(()),
        }
    }

    /// restic's cache, with the agent's state directory at hand.
    pub fn cache_dir(&self, state_dir: &Path) -> PathBuf {
        match &self.cache_dir {
            Some(path) => path.to_path_buf(),
            None => state_dir.join("restic-cache"),
        }
    }
}
