//! Builds the pool and its backups from the configuration, and reads the files that hold secrets.
//!
//! It looks at programs and at those files, not at the pool: that one may be mounted later. The invariant: a secret
//! that others on the host can read is refused, as a private key is.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::Uid;
use thiserror::Error;

use super::btrfs::{self, Btrfs};
use super::owned::Owned;
use super::owner::{self, Storage};
use super::{Backend, PoolFault};
use crate::backup::{self, Backups, BackupsFault, Keep, Secret};
use crate::config::{AgentConfig, BackendKind, BackupConfig, StorageConfig};

/// More is no password and no list of credentials.
const SECRET_AT_MOST: u64 = 64 << 10;

/// Why the configured pool cannot be served.
#[derive(Debug, Error)]
pub enum StorageSetupError {
    /// Something that its backend needs is missing.
    #[error("the storage pool cannot be served")]
    Backend(#[source] PoolFault),
    /// Backups cannot be made.
    #[error("the storage pool cannot be backed up")]
    Backups(#[source] BackupsFault),
    /// A file with a secret is not to be trusted.
    #[error("storage.backup.{key} cannot be used")]
    Secret {
        /// The key of the configuration.
        key: &'static str,
        /// Why.
        #[source]
        source: SecretFault,
    },
}

/// Why a file with a secret is refused.
#[derive(Debug, Error)]
pub enum SecretFault {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A pipe, a directory, or far too large.
    #[error("{} is not a file of at most 64 KiB", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{} can be read by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else can change it.
    #[error("{} belongs to user {owner}, who can change it; run: chown root {}", path.display(), path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It holds nothing.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is not text.
    #[error("{} is not text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A line that sets nothing. What it holds is not shown.
    #[error("line {line} of {} is not NAME=VALUE", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// Builds what `[storage]` configures; None without it.
///
/// # Errors
/// When a program is missing or a file with a secret is not as it should be; the sentence names it.
pub fn from_config(config: &AgentConfig) -> Result<Option<Owned>, StorageSetupError> {
    let Some(storage) = &config.storage else {
        return Ok(None);
    };
    let backend = backend(storage).map_err(StorageSetupError::Backend)?;
    let backups = match &storage.backup {
        None => None,
        Some(backup) => {
            let settings = backup_settings(storage, backup, &config.state_dir)?;
            let backups = Backups::new(settings, Arc::clone(&backend));
            Some(backups.map_err(StorageSetupError::Backups)?)
        }
    };
    let settings = owner::Settings {
        pool: storage.pool.clone(),
        path: storage.path.to_path_buf(),
        reserve: storage.reserve,
        backup_repository: backups
            .as_ref()
            .map(Backups::repository_for_people)
            .unwrap_or_default(),
    };
    Ok(Some(Owned {
        storage: Storage::new(settings, backend),
        backups,
    }))
}

fn backend(config: &StorageConfig) -> Result<Arc<dyn Backend>, PoolFault> {
    match config.backend {
        BackendKind::Btrfs => {
            let left_out = config.backup.iter().flat_map(|backup| &backup.left_out);
            let btrfs = Btrfs::new(btrfs::Settings {
                pool: config.pool.clone(),
                path: config.path.to_path_buf(),
                spares: config
                    .spare_devices
                    .iter()
                    .map(|spare| spare.as_str().to_owned())
                    .collect(),
                left_out: left_out.map(|path| path.as_path().to_path_buf()).collect(),
            })?;
            Ok(Arc::new(btrfs))
        }
    }
}

fn backup_settings(
    storage: &StorageConfig,
    backup: &BackupConfig,
    state_dir: &Path,
) -> Result<backup::Settings, StorageSetupError> {
    let key = "password_file";
    let password =
        read_secret(&backup.password_file).map_err(|source| StorageSetupError::Secret { key, source })?;
    if password.trim().is_empty() {
        let path = backup.password_file.to_path_buf();
        let source = SecretFault::Empty { path };
        return Err(StorageSetupError::Secret { key, source });
    }
    let environment = match &backup.environment_file {
        None => Vec::new(),
        Some(path) => read_secret(path)
            .and_then(|text| environment(path, &text))
            .map_err(|source| StorageSetupError::Secret {
                key: "environment_file",
                source,
            })?,
    };
    let keep = backup.keep;
    Ok(backup::Settings {
        pool: storage.pool.clone(),
        pool_path: storage.path.to_path_buf(),
        repository: backup.repository.expose().to_owned(),
        password_file: backup.password_file.to_path_buf(),
        environment,
        read_back: backup.read_back,
        keep: Keep {
            last: keep.last,
            hourly: keep.hourly,
            daily: keep.daily,
            weekly: keep.weekly,
            monthly: keep.monthly,
            yearly: keep.yearly,
        },
        restore_into: backup
            .restore_into
            .iter()
            .map(|path| path.to_path_buf())
            .collect(),
        cache_dir: backup.cache_dir(state_dir),
    })
}

/// The text of a file that only its owner may read, and that only root or this user may own.
fn read_secret(path: &Path) -> Result<String, SecretFault> {
    let failed = |source| SecretFault::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before the open: the open of a pipe waits for a writer.
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() || kind.len() > SECRET_AT_MOST {
        return Err(SecretFault::NotAFile {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(failed)?;
    let opened = file.metadata().map_err(failed)?;
    let mode = opened.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFault::Loose {
            path: path.to_owned(),
            mode,
        });
    }
    let owner = Uid::from_raw(opened.uid());
    if !owner.is_root() && owner != Uid::effective() {
        return Err(SecretFault::Foreign {
            path: path.to_owned(),
            owner: opened.uid(),
        });
    }
    let mut bytes = Vec::new();
    file.take(SECRET_AT_MOST)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| SecretFault::NotText {
        path: path.to_owned(),
    })
}

/// `NAME=VALUE` lines, as in systemd's EnvironmentFile without its quoting; empty lines and those with `#` are passed
/// over.
fn environment(path: &Path, text: &str) -> Result<Vec<(String, Secret)>, SecretFault> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    lines
        .map(|(at, line)| {
            let malformed = || SecretFault::Line {
                path: path.to_owned(),
                line: at + 1,
            };
            let (name, value) = line.split_once('=').ok_or_else(malformed)?;
            let name = name.trim();
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let begins = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
            if !plain || !begins || value.contains('\0') {
                return Err(malformed());
            }
            Ok((name.to_owned(), Secret::from(value.trim().to_owned())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secret(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_cure() {
        for mode in [0o600, 0o400] {
            assert_eq!(read_secret(secret("s3cret\n", mode).path()).unwrap(), "s3cret\n");
        }
        for mode in [0o640, 0o604, 0o666, 0o622] {
            let fault = read_secret(secret("s3cret", mode).path())
                .unwrap_err()
                .to_string();
            assert!(
                fault.contains("chmod 600") && !fault.contains("s3cret"),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_secret_of_another_user_is_refused() {
        let file = secret("s3cret", 0o600);
        // Only root can give a file away, and only root could read it then.
        if std::os::unix::fs::chown(file.path(), Some(12_345), None).is_ok() {
            let fault = read_secret(file.path()).unwrap_err();
            assert!(
                matches!(fault, SecretFault::Foreign { owner: 12_345, .. }),
                "{fault}"
            );
        }
    }

    #[test]
    fn what_is_no_small_file_is_no_secret() {
        assert!(matches!(
            read_secret(Path::new("/dev")),
            Err(SecretFault::NotAFile { .. })
        ));
        assert!(matches!(
            read_secret(Path::new("/nowhere/at/all")),
            Err(SecretFault::Read { .. })
        ));
        let huge = secret(&"x".repeat(65_537), 0o600);
        assert!(matches!(
            read_secret(huge.path()),
            Err(SecretFault::NotAFile { .. })
        ));
    }

    #[test]
    fn credentials_are_read_line_by_line_and_never_shown() {
        let path = Path::new("/etc/x");
        let text = "# for S3\n\nAWS_ACCESS_KEY_ID=abc\n  AWS_SECRET_ACCESS_KEY = a=b c \n";
        let read = environment(path, text).unwrap();
        let names: Vec<_> = read.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
        assert_eq!(read[1].1, Secret::from("a=b c".to_owned()));
        for bad in [
            "s3cret",
            "=s3cret",
            "1A=s3cret",
            "A B=s3cret",
            "export A=s3cret",
            "A=s3\0cret",
        ] {
            let fault = environment(path, &format!("A=1\n{bad}\n"))
                .unwrap_err()
                .to_string();
            assert_eq!(fault, "line 2 of /etc/x is not NAME=VALUE");
        }
    }
}
