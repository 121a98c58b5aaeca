//! A fresh certificate with its key, and how both get into files.
//!
//! It never reads a file. The invariant: a key is never readable by others, not even for the moment of writing,
//! and no file is overwritten unless that was asked for. What it has written is there after a crash of the machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hostler_common::id::{HostName, InvalidId};
use hostler_common::units::UnixMillis;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::identity::Identity;

/// The mode of a certificate's file.
const CERTIFICATE_MODE: u32 = 0o644;

/// The mode of a key's file.
const KEY_MODE: u32 = 0o600;

/// The file names of the CA's own certificate and key, without their endings.
pub(crate) const CA_STEM: &str = "ca";

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    /// Whom it names.
    pub identity: Identity,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The key, PKCS #8 in PEM. Wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

/// What to do with files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Put the new ones in their place, each in one rename.
    Replace,
}

/// Where the two files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Why the files were not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Something is there.
    #[error("{} exists and is not overwritten; use another name or directory", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system says no.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name would leave the directory, or read as an option.
    #[error("the files cannot be named {stem:?}")]
    Stem {
        /// The name.
        stem: String,
        /// What is wrong with it.
        #[source]
        source: InvalidId,
    },
    /// The name is the CA's.
    #[error("the files cannot be named {CA_STEM:?}: those are the CA's own; give another name")]
    ReservedStem,
}

impl Issued {
    /// Writes `STEM.crt` (0644) and `STEM.key` (0600) into `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When a file exists and is to be kept, when the name is unfit, or when the file system says no.
    pub fn write(&self, dir: &Path, stem: &str, existing: Existing) -> Result<Written, WriteError> {
        // Even forced, a leaf never takes the place of the CA.
        if stem == CA_STEM {
            return Err(WriteError::ReservedStem);
        }
        if let Err(source) = stem.parse::<HostName>() {
            return Err(WriteError::Stem {
                stem: stem.to_owned(),
                source,
            });
        }
        write_pair(dir, stem, &self.certificate_pem, &self.key_pem, existing)
    }
}

/// Writes a certificate and its key, the key first: a certificate without a key misleads, a key without a
/// certificate does not.
pub(crate) fn write_pair(
    dir: &Path,
    stem: &str,
    certificate_pem: &str,
    key_pem: &str,
    existing: Existing,
) -> Result<Written, WriteError> {
    std::fs::create_dir_all(dir).map_err(|source| WriteError::Write {
        path: dir.to_owned(),
        source,
    })?;
    let written = Written {
        certificate: dir.join(format!("{stem}.crt")),
        key: dir.join(format!("{stem}.key")),
    };
    match existing {
        Existing::Keep => {
            // Asked for both before either is written, so that a refusal leaves nothing behind.
            for path in [&written.certificate, &written.key] {
                if path.symlink_metadata().is_ok() {
                    return Err(WriteError::Exists { path: path.clone() });
                }
            }
            create(&written.key, key_pem, KEY_MODE)?;
            create(&written.certificate, certificate_pem, CERTIFICATE_MODE).inspect_err(|_| {
                // Ours, and of no use alone; when it cannot go, the next try names it.
                let _ = std::fs::remove_file(&written.key);
            })?;
        }
        Existing::Replace => {
            replace(&written.key, key_pem, KEY_MODE)?;
            replace(&written.certificate, certificate_pem, CERTIFICATE_MODE)?;
        }
    }
    // The contents are on the disk; their names are once the directory is.
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| WriteError::Write {
            path: dir.to_owned(),
            source,
        })?;
    Ok(written)
}

/// Creates a file that must not exist.
fn create(path: &Path, content: &str, mode: u32) -> Result<(), WriteError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists { path },
            _ => WriteError::Write { path, source },
        }
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(content.as_bytes())
        // The mode again, since the umask may have taken from it.
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .map_err(|source| {
            // Half a file is worse than none.
            let _ = std::fs::remove_file(path);
            failed(source)
        })
}

/// Writes beside `path` and renames over it: a reader sees the old file or the new one.
fn replace(path: &Path, content: &str, mode: u32) -> Result<(), WriteError> {
    remove_abandoned(path)?;
    let beside = beside(path, std::process::id());
    create(&beside, content, mode)?;
    std::fs::rename(&beside, path).map_err(|source| {
        // Holds a key that nobody will use.
        let _ = std::fs::remove_file(&beside);
        WriteError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// Where the process `pid` writes what will be `path`.
fn beside(path: &Path, pid: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{pid}.new"));
    name.into()
}

/// Removes what a process that died wrote beside `path` and did not rename: a key may be in it. A file of our own
/// number is one of those too, since we have written none yet.
fn remove_abandoned(path: &Path) -> Result<(), WriteError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let failed = |source| WriteError::Write {
        path: path.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let found = entry.map_err(failed)?.file_name();
        let writer = found
            .to_str()
            .and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".new"))
            .and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = writer else { continue };
        let is_at_work = pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists();
        if is_at_work {
            continue;
        }
        match std::fs::remove_file(beside(path, pid)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
            // Gone, by us or by another that tidied up at the same time.
            _ => {}
        }
    }
    Ok(())
}
