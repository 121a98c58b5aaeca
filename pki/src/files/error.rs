//! Why the files of an identity are not taken: the file by its name, what is wrong with it, and what to do.
//!
//! It holds sentences and decides nothing.

use std::path::PathBuf;

use hostler_common::units::UnixMillis;
use thiserror::Error;

use super::MAX_FILE_LEN;
use crate::certificate::FactsError;
use crate::verify::VerifyError;

/// Why credentials were not taken.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// Missing, or not ours to read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory, a socket, a pipe, or something huge.
    #[error("{} is not a file of at most {MAX_FILE_LEN} bytes", path.display())]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// Broken PEM.
    #[error("{} is not PEM: {problem}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; nothing of what is in it.
        problem: &'static str,
    },
    /// No certificate in it.
    #[error("{} holds no certificate; expected a PEM section BEGIN CERTIFICATE", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// None of the CAs is good any more.
    #[error("the CA in {} expired at {not_after}; get the new one", path.display())]
    CaExpired {
        /// The file.
        path: PathBuf,
        /// The last moment of the last of them.
        not_after: UnixMillis,
    },
    /// A certificate in the CA file that is no CA's.
    #[error("{} holds a certificate that cannot be a root", path.display())]
    BadRoot {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The certificate is not X.509.
    #[error("{} does not hold an X.509 certificate", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FactsError,
    },
    /// Others could read the key.
    #[error("the key {} has mode {mode:04o}, so others may use it; run: chmod 0600 {}", path.display(), path.display())]
    LooseKey {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user could replace the key of a process that runs as root.
    #[error("the key {} belongs to the user with number {owner}, who may change it under us; do this as that user, or: chown root {}", path.display(), path.display())]
    ForeignKey {
        /// The file.
        path: PathBuf,
        /// Its owner, by number.
        owner: u32,
    },
    /// None, or more than one.
    #[error("{} holds {count} private keys; exactly one is expected", path.display())]
    KeyCount {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A key of a kind that we do not know.
    #[error("the key in {} cannot be used; issue a new one with hostler-pki", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// Key and certificate do not belong together.
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// Peers would refuse it.
    #[error("the certificate {} is not accepted with the CA {}", path.display(), ca.display())]
    NotAccepted {
        /// The certificate's file.
        path: PathBuf,
        /// The CA's file.
        ca: PathBuf,
        /// Why.
        #[source]
        source: Box<VerifyError>,
    },
}

impl CredentialsError {
    /// The last moment of our own certificate, when its end is what is wrong: then a new one cures it.
    pub fn expired_at(&self) -> Option<UnixMillis> {
        match self {
            Self::NotAccepted { source, .. } => match **source {
                VerifyError::Expired { not_after } => Some(not_after),
                _ => None,
            },
            _ => None,
        }
    }
}
