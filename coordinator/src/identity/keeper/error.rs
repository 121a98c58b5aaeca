//! Why a coordinator's certificates cannot be used, and why nothing is signed: each time with the way out. It decides nothing.

use std::path::PathBuf;

use hostler_pki::ca::AuthorityError;
use hostler_pki::{CredentialsError, Fingerprint, Identity, TlsConfigError, TrustDomain, TrustError};
use thiserror::Error;

use crate::store::json::RecordError;

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum SignError {
    /// It is not configured.
    #[error(
        "this coordinator issues no certificates: [enrolment] with ca_dir is missing in its configuration"
    )]
    NotConfigured,
    /// What is asked for, or the CA.
    #[error("no certificate was signed")]
    Authority(#[source] AuthorityError),
    /// The CA, whatever is asked for.
    #[error("no host can enrol, and no certificate of an agent is renewed")]
    Ca(#[source] AuthorityError),
    /// Its certificates would be refused at this very port.
    #[error(
        "the CA in {} signs with {root}, which this coordinator does not trust; put the ca.crt there into {} too",
        dir.display(),
        trusted.display()
    )]
    NotTrusted {
        /// The CA's directory.
        dir: PathBuf,
        /// The root that signs.
        root: Fingerprint,
        /// What this coordinator trusts.
        trusted: PathBuf,
    },
    /// A revocation would not cover it.
    #[error("the new certificate could not be noted")]
    Unnoted(#[source] RecordError),
    /// The thread is gone.
    #[error("the coordinator is ending")]
    Closed,
}

impl SignError {
    /// Whether another request would be signed.
    pub fn is_the_callers(&self) -> bool {
        matches!(self, Self::Authority(AuthorityError::Request { .. }))
    }
}

/// Why the coordinator does not start.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// Its certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It is somebody else's.
    #[error("{} names {identity}; a coordinator needs a certificate from `hostler-pki issue coordinator`", path.display())]
    NotACoordinator {
        /// The certificate's file.
        path: PathBuf,
        /// Whom it names.
        identity: Box<Identity>,
    },
    /// Another fleet's.
    #[error("{} is now of the trust domain {found}, and this coordinator serves {expected}; put the right files back", path.display())]
    OtherTrustDomain {
        /// The certificate's file.
        path: PathBuf,
        /// Its trust domain.
        found: TrustDomain,
        /// Ours.
        expected: TrustDomain,
    },
    /// Agents would not take them.
    #[error("the CA certificates in {} are not taken", path.display())]
    Cas {
        /// Their file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TrustError,
    },
    /// TLS does not take it.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The CA cannot sign.
    #[error(
        "the CA of [enrolment] cannot be used; its user must own ca.key with mode 0600, or leave [enrolment] out"
    )]
    Ca(#[source] SignError),
    /// The system gives no thread.
    #[error("cannot start the thread that keeps the certificates")]
    Thread(#[source] std::io::Error),
}
