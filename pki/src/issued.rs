//! A fresh certificate with its key, and how both get into files.
//!
//! It never reads a file. The invariant: a key is never readable by others, not even for the moment of writing,
//! and no file is overwritten unless that was asked for. What it has written is there after a crash of the machine.

use std::io;
use std::path::{Path, PathBuf};

use hostler_common::id::{HostName, InvalidId};
use hostler_common::units::UnixMillis;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::atomic::{
    PUBLIC_MODE as CERTIFICATE_MODE, SECRET_MODE as KEY_MODE, create, replace, replace_durably, sync_dir,
};
use crate::identity::Identity;

/// The file names of the CA's own certificate and key, without their endings.
pub(crate) const CA_STEM: &str = "ca";

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    /// Whom it names.
    pub identity: Identity,
    /// Its first moment. One that follows a revocation may begin up to a second from now.
    pub not_before: UnixMillis,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// The certificate, and after it any intermediate, PEM.
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

    /// Puts certificate and key into the one file `path` (0600), in the place of what is there. Give the same path as
    /// `certificate` and as `key`: whoever loads it sees the old pair or the new one, and never one half of each, also
    /// after a crash. A symbolic link is replaced itself, not what it points to.
    ///
    /// # Errors
    /// When the file system says no; what was there is then untouched.
    pub fn write_one_file(&self, path: &Path) -> Result<(), WriteError> {
        let separator = if self.certificate_pem.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let both = Zeroizing::new([self.certificate_pem.as_str(), separator, &self.key_pem].concat());
        replace_durably(path, &both, KEY_MODE)
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
    sync_dir(dir)?;
    Ok(written)
}
