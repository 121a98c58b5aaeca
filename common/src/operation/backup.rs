//! What a request about backups names: a backup, files in it, a place to restore into. A value that exists is
//! safe to hand to a program as one argument; whether the thing exists is another question.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest path, in bytes: Linux's PATH_MAX.
const PATH_AT_MOST: usize = 4096;
/// A restic id in full, in hex digits.
const ID_DIGITS: usize = 64;
/// Fewer digits are a slip of the pen more often than a backup.
const ID_DIGITS_AT_LEAST: usize = 4;

/// Why a text names no backup, no file of a pool or no place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidBackup {
    /// No id.
    #[error(
        "{text:?} is not a backup's id: 4 to 64 hex digits, or \"latest\"; `hostler backups list` shows them"
    )]
    Id {
        /// The text, shortened.
        text: String,
    },
    /// No path in a pool.
    #[error(
        "{text:?} is not a path in a pool; write it from the pool's root, as desktops/a.qcow2, without '..'"
    )]
    PoolPath {
        /// The text, shortened.
        text: String,
    },
    /// No path of a host.
    #[error("{text:?} is not a directory's path from the root, without '..'")]
    Target {
        /// The text, shortened.
        text: String,
    },
    /// A share that is none.
    #[error("{percent} % cannot be read back; give 1 to 100, or 0 for all")]
    Share {
        /// The number.
        percent: u32,
    },
    /// A restore to nowhere.
    #[error(
        "neither a target nor paths are given: name an empty directory to restore everything into, or the paths to put back in their places"
    )]
    Nowhere,
    /// Overwriting where nothing can be.
    #[error("overwrite makes sense only without a target: the target must be empty anyway")]
    OverwriteWithTarget,
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A backup: its restic id or the beginning of it, or the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackupId {
    /// The newest one.
    Latest,
    /// By lower-case hex digits.
    Id(String),
}

impl FromStr for BackupId {
    type Err = InvalidBackup;

    fn from_str(text: &str) -> Result<Self, InvalidBackup> {
        let digits = ID_DIGITS_AT_LEAST..=ID_DIGITS;
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        match text {
            "latest" => Ok(Self::Latest),
            id if digits.contains(&id.len()) && id.bytes().all(hex) => Ok(Self::Id(id.to_owned())),
            _ => Err(InvalidBackup::Id { text: shown(text) }),
        }
    }
}

impl TryFrom<String> for BackupId {
    type Error = InvalidBackup;

    fn try_from(text: String) -> Result<Self, InvalidBackup> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Id(id) => f.write_str(id),
        }
    }
}

/// A file or directory of a pool: a path from the pool's root, without `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolPath(String);

impl PoolPath {
    /// From the pool's root, without a leading slash.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PoolPath {
    type Err = InvalidBackup;

    /// A leading slash means the pool's root. Superfluous slashes and dots are dropped.
    fn from_str(text: &str) -> Result<Self, InvalidBackup> {
        let invalid = || InvalidBackup::PoolPath { text: shown(text) };
        if text.len() > PATH_AT_MOST || text.chars().any(char::is_control) {
            return Err(invalid());
        }
        let mut clean = Vec::new();
        for component in Path::new(text.trim_start_matches('/')).components() {
            match component {
                Component::Normal(name) => clean.push(name.to_str().ok_or_else(invalid)?),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(invalid()),
            }
        }
        match clean.is_empty() {
            true => Err(invalid()),
            false => Ok(Self(clean.join("/"))),
        }
    }
}

impl TryFrom<String> for PoolPath {
    type Error = InvalidBackup;

    fn try_from(text: String) -> Result<Self, InvalidBackup> {
        text.parse()
    }
}

impl From<PoolPath> for String {
    fn from(path: PoolPath) -> Self {
        path.0
    }
}

impl fmt::Display for PoolPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much of a repository's data is read back, 1 to 100 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ReadShare(u32);

impl ReadShare {
    /// All of it.
    pub const ALL: Self = Self(100);

    /// In percent.
    pub fn percent(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for ReadShare {
    type Error = InvalidBackup;

    /// 0 means all.
    fn try_from(percent: u32) -> Result<Self, InvalidBackup> {
        match percent {
            0 => Ok(Self::ALL),
            1..=100 => Ok(Self(percent)),
            _ => Err(InvalidBackup::Share { percent }),
        }
    }
}

impl From<ReadShare> for u32 {
    fn from(share: ReadShare) -> Self {
        share.0
    }
}

/// Where a restore puts files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreInto {
    /// Into a directory that is empty or absent.
    Directory(PathBuf),
    /// Back in their places in the pool, which must be free.
    Places,
    /// Back in their places in the pool, replacing what is there.
    PlacesOverwriting,
}

impl RestoreInto {
    pub(super) fn of(target: &str, paths: &[PoolPath], overwrite: bool) -> Result<Self, InvalidBackup> {
        let invalid = || InvalidBackup::Target { text: shown(target) };
        match (target, overwrite) {
            ("", _) if paths.is_empty() => Err(InvalidBackup::Nowhere),
            ("", true) => Ok(Self::PlacesOverwriting),
            ("", false) => Ok(Self::Places),
            (_, true) => Err(InvalidBackup::OverwriteWithTarget),
            (target, false) => {
                let path = Path::new(target);
                let plain = path
                    .components()
                    .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
                let fits = target.len() <= PATH_AT_MOST && !target.chars().any(char::is_control);
                if !path.is_absolute() || !plain || !fits || path.parent().is_none() {
                    return Err(invalid());
                }
                Ok(Self::Directory(path.components().collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_by_hex_digits_or_as_the_latest() {
        assert_eq!("latest".parse(), Ok(BackupId::Latest));
        assert_eq!("abcd12".parse(), Ok(BackupId::Id("abcd12".into())));
        for bad in [
            "",
            "abc",
            "ABCD",
            "-abcd",
            "abcg1",
            "latest ",
            &"a".repeat(65),
            "../x",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_path_in_a_pool_cannot_leave_it() {
        let path = |text: &str| text.parse::<PoolPath>().map(String::from);
        assert_eq!(
            path("/desktops//./a b.qcow2/").as_deref(),
            Ok("desktops/a b.qcow2")
        );
        assert_eq!(path("-rf").as_deref(), Ok("-rf"));
        for bad in [
            "",
            "/",
            ".",
            "..",
            "a/../../b",
            "a\0b",
            "a\nb",
            &"x/".repeat(4000),
        ] {
            assert!(path(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_restore_has_a_place() {
        let paths = ["a".parse().unwrap()];
        let into = RestoreInto::of;
        assert_eq!(into("", &[], false), Err(InvalidBackup::Nowhere));
        assert_eq!(into("", &paths, false), Ok(RestoreInto::Places));
        assert_eq!(into("", &paths, true), Ok(RestoreInto::PlacesOverwriting));
        assert_eq!(
            into("/srv/x/", &[], false),
            Ok(RestoreInto::Directory("/srv/x".into()))
        );
        assert_eq!(
            into("/srv/x", &paths, true),
            Err(InvalidBackup::OverwriteWithTarget)
        );
        for bad in ["/", "srv", "/srv/../etc", "/a\0", "."] {
            assert!(
                matches!(into(bad, &[], false), Err(InvalidBackup::Target { .. })),
                "{bad:?}"
            );
        }
    }
}
