//! This host's certificate and key, as they lie in files.
//!
//! It never asks anybody for a certificate. The invariant: whenever this process dies, [`load`] finds the old pair or the new one.
//!
//! Certificate and key are best one file, which is replaced in one rename. Where the configuration names two, each gets the whole
//! pair, the certificate's file first: after a death in between that one holds the new pair by itself, and [`load`] takes it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hostler_common::units::UnixMillis;
use hostler_pki::certificate::CertificateFacts;
use hostler_pki::files::read_certificates;
use hostler_pki::issued::{Issued, WriteError};
use hostler_pki::verify::VerifyError;
use hostler_pki::{Credentials, CredentialsError, Fingerprint, Identity, TlsFiles};
use thiserror::Error;

/// A certificate of this host, which may have expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Whom it names.
    pub identity: Identity,
    /// Its first moment.
    pub not_before: UnixMillis,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// The CA that vouches for it. None when it is not valid now.
    pub root: Option<Fingerprint>,
    /// When its file was written, as far as the file says.
    pub written: Option<UnixMillis>,
}

/// Why a new certificate was not put in its place. What was there is untouched, or whole and new.
#[derive(Debug, Error)]
pub enum PutError {
    /// It could not be used here.
    #[error("the new certificate is not taken")]
    Unusable {
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The file system says no.
    #[error("the new certificate cannot be kept")]
    Write {
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
}

impl PutError {
    /// When it begins, if that is all that is wrong with it: by this host's clock it is of the future.
    pub fn begins_at(&self) -> Option<UnixMillis> {
        match self {
            Self::Unusable {
                source: CredentialsError::NotAccepted { source, .. },
            } => match **source {
                VerifyError::NotYetValid { not_before } => Some(not_before),
                _ => None,
            },
            Self::Unusable { .. } | Self::Write { .. } => None,
        }
    }
}

/// Loads what connections are made with.
///
/// # Errors
/// As [`Credentials::load`].
pub fn load(files: &TlsFiles) -> Result<Credentials, CredentialsError> {
    Credentials::load(files).or_else(|error| match error {
        CredentialsError::Mismatch { .. } if files.certificate != files.key => {
            Credentials::load(&one_file(files, &files.certificate)).map_err(|_| error)
        }
        other => Err(other),
    })
}

impl Own {
    /// Reads the certificate of this host. One that has expired is read as well, since only its time is wrong.
    ///
    /// # Errors
    /// Whatever else is wrong with the files.
    pub fn read(files: &TlsFiles) -> Result<Self, CredentialsError> {
        let (facts, root) = match load(files) {
            Ok(good) => (
                (good.identity().clone(), good.not_before(), good.not_after()),
                Some(good.root()),
            ),
            Err(error) if error.expired_at().is_some() => (facts(&files.certificate).ok_or(error)?, None),
            Err(error) => return Err(error),
        };
        Ok(Self::of(files, facts, root))
    }

    /// The certificate of this host when it only begins later, by this host's clock, and is good otherwise.
    pub fn of_later(files: &TlsFiles) -> Option<Self> {
        let source = load(files).err()?;
        PutError::Unusable { source }.begins_at()?;
        Some(Self::of(files, facts(&files.certificate)?, None))
    }

    fn of(files: &TlsFiles, facts: (Identity, UnixMillis, UnixMillis), root: Option<Fingerprint>) -> Self {
        let (identity, not_before, not_after) = facts;
        let written = std::fs::metadata(&files.certificate).ok().map(|found| {
            UnixMillis(
                found
                    .mtime()
                    .saturating_mul(1000)
                    .saturating_add(found.mtime_nsec() / 1_000_000),
            )
        });
        Self {
            identity,
            not_before,
            not_after,
            root,
            written,
        }
    }

    /// Whether it was made or written before `at`.
    pub fn came_before(&self, at: UnixMillis) -> bool {
        self.written.unwrap_or(self.not_before) < at
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        now > self.not_after
    }
}

/// Whom the first certificate in `path` names, and when, whether or not it is good.
fn facts(path: &Path) -> Option<(Identity, UnixMillis, UnixMillis)> {
    let certificates = read_certificates(path).ok()?;
    let facts = CertificateFacts::read(certificates.first()?).ok()?;
    Some((facts.identity.ok()?, facts.not_before, facts.not_after))
}

/// Puts a new pair in the place of the old one, once it is known that it can be used with the CAs that are there.
///
/// # Errors
/// When it cannot be used, or cannot be written.
pub fn put(files: &TlsFiles, issued: &Issued) -> Result<(), PutError> {
    try_out(files, issued)?;
    write(files, issued)
}

/// Whether the pair could be used with the CAs that are there.
///
/// # Errors
/// When it could not, or cannot be written.
pub fn try_out(files: &TlsFiles, issued: &Issued) -> Result<(), PutError> {
    let beside = beside(&files.certificate);
    issued
        .write_one_file(&beside)
        .map_err(|source| PutError::Write { source })?;
    let tried = Credentials::load(&one_file(files, &beside));
    // It holds a key. When it cannot go, the next try takes its place.
    let _ = std::fs::remove_file(&beside);
    tried.map(drop).map_err(|source| PutError::Unusable { source })
}

/// Puts a new pair in the place of the old one, whatever it is.
///
/// # Errors
/// When it cannot be written.
pub fn write(files: &TlsFiles, issued: &Issued) -> Result<(), PutError> {
    let write = |path| {
        issued
            .write_one_file(path)
            .map_err(|source| PutError::Write { source })
    };
    write(&files.certificate)?;
    match files.key == files.certificate {
        true => Ok(()),
        false => write(&files.key),
    }
}

fn one_file(files: &TlsFiles, both: &Path) -> TlsFiles {
    TlsFiles {
        ca: files.ca.clone(),
        certificate: both.to_owned(),
        key: both.to_owned(),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tried");
    name.into()
}
