//! `[storage]`: the pool that this host owns, and the devices that it may take.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path};

use hostler_common::id::PoolName;
use serde::{Deserialize, Deserializer};

use super::{AbsolutePath, BackupConfig};
use crate::storage::plan::{InvalidReserve, Reserve};

/// The pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Its name in the fleet.
    #[serde(default = "default_pool")]
    pub pool: PoolName,
    /// What it is made with.
    #[serde(default)]
    pub backend: BackendKind,
    /// Where it is mounted.
    pub path: AbsolutePath,
    /// Devices that it may take: paths or patterns of them.
    #[serde(default)]
    pub spare_devices: Vec<DevicePattern>,
    /// The share of its size that a shrink leaves free.
    #[serde(default, deserialize_with = "reserve")]
    pub reserve: Reserve,
    /// Where its backups go. None are made, when not given.
    pub backup: Option<BackupConfig>,
}

/// What a pool is made with.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// One mounted btrfs.
    #[default]
    Btrfs,
}

/// A device's path, or a pattern of such paths with `*`, `?` and `[…]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct DevicePattern(String);

impl DevicePattern {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DevicePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = Path::new(&text);
        let mut parts = path.components();
        let plain = parts.next() == Some(Component::RootDir)
            && parts.clone().count() > 0
            && parts.all(|part| matches!(part, Component::Normal(_)))
            && !text.chars().any(char::is_control);
        match plain {
            true => Ok(Self(text)),
            false => Err(format!(
                "the spare device {text:?} is not a device's path from the root, as /dev/disk/by-id/…"
            )),
        }
    }
}

fn default_pool() -> PoolName {
    PoolName::try_from("default".to_owned()).expect("it holds nothing but letters")
}

/// As `10 %` or `10%`.
pub(super) fn percent(text: &str) -> Option<u32> {
    let digits = text.trim().strip_suffix('%')?.trim_end();
    let plain = !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn reserve<'de, D: Deserializer<'de>>(from: D) -> Result<Reserve, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(from)?;
    let percent = percent(&text)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is not a share; write it as \"10 %\"")))?;
    Reserve::try_from(percent).map_err(|error: InvalidReserve| D::Error::custom(error))
}

impl StorageConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.path.parent().is_none() {
            return Err("storage.path is the root; name the directory where the pool is mounted".into());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.spare_devices.iter().find(|spare| !seen.insert(*spare)) {
            return Err(format!("storage.spare_devices holds {twice} twice"));
        }
        match &self.backup {
            None => Ok(()),
            Some(backup) => backup.check(&self.path),
        }
    }
}
