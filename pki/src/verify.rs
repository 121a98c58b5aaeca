//! Whether a certificate is good: its chain, its time, what it was issued for, and whom it names.
//!
//! Both ends of a connection, the check of our own files and `hostler-pki verify` ask here, so they cannot
//! disagree. It never looks at host names: a coordinator is found by its SPIFFE identity, which stays the same
//! behind any address, tunnel or proxy, and which only our CA can give away.

use std::fmt;
use std::sync::Arc;

use hostler_common::units::UnixMillis;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, IdentityError, Subject, TrustDomain};
use crate::{provider, revocation, trust};

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// To serve: only a coordinator does.
    Server,
    /// To call: agents and clients do.
    Client,
}

impl Usage {
    /// What `subject`'s certificate is for.
    pub fn of(subject: &Subject) -> Self {
        match subject {
            Subject::Coordinator { .. } => Self::Server,
            Subject::Agent { .. } | Subject::Client { .. } => Self::Client,
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "to serve as a coordinator",
            Self::Client => "to call as an agent or client",
        })
    }
}

/// Why a certificate is not accepted. Reads on after "the certificate is not accepted".
#[derive(Debug, Clone, Error)]
pub enum VerifyError {
    /// Another CA, or a chain with a link missing.
    #[error("it is not signed by the CA that is trusted here")]
    UnknownIssuer,
    /// Too late.
    #[error("it expired at {not_after}; issue a new one")]
    Expired {
        /// Its last moment.
        not_after: UnixMillis,
    },
    /// Too early.
    #[error("it is not valid before {not_before}; compare the clocks")]
    NotYetValid {
        /// Its first moment.
        not_before: UnixMillis,
    },
    /// Issued for something else.
    #[error("it was not issued {wanted}")]
    Purpose {
        /// What it was shown for.
        wanted: Usage,
    },
    /// Anything else that X.509 forbids.
    #[error("it does not verify")]
    Invalid {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// It names nobody.
    #[error("it holds no valid identity")]
    Identity {
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// Another fleet's.
    #[error("its identity {found} is not of the trust domain {expected}")]
    OtherTrustDomain {
        /// Whom it names.
        found: Box<Identity>,
        /// Ours.
        expected: TrustDomain,
    },
    /// It was good, until somebody revoked it.
    #[error("its identity {found} was revoked at {at}; {}", revocation::way_out(&found.subject))]
    Revoked {
        /// Whom it names.
        found: Box<Identity>,
        /// When.
        at: UnixMillis,
    },
    /// Somebody else's, copied.
    #[error("it was shown without its key; a copy of a certificate alone is of no use")]
    NotItsKey,
    /// Not the root that a token names.
    #[error("it does not lead to the CA {pinned} that the token names, {}", match shown {
        Some(shown) => format!("but to {shown}; check that the token is of this fleet, and not from before its CA was renewed"),
        None => "and shows no CA at all; check that this is the port for enrolment".to_owned(),
    })]
    OtherRoot {
        /// The root of the token.
        pinned: Fingerprint,
        /// The last of the chain that was shown.
        shown: Option<Fingerprint>,
    },
    /// The pinned root is no CA of ours.
    #[error("the CA that the token names is not one of Hostler")]
    RootWithoutDomain,
    /// A right certificate in the wrong place.
    #[error("its identity {found} is not one {wanted}")]
    WrongSubject {
        /// Whom it names.
        found: Box<Identity>,
        /// What was wanted.
        wanted: Usage,
    },
}

impl VerifyError {
    /// Our words for what rustls found while it looked at a certificate that was shown for `wanted`.
    pub fn from_rustls(error: rustls::Error, wanted: Usage) -> Self {
        let millis =
            |at: UnixTime| UnixMillis(i64::try_from(at.as_secs().saturating_mul(1000)).unwrap_or(i64::MAX));
        let rustls::Error::InvalidCertificate(problem) = &error else {
            return Self::Invalid { source: error };
        };
        match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired {
                not_after: millis(*not_after),
            },
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid {
                not_before: millis(*not_before),
            },
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose { wanted }
            }
            _ => match Self::in_rustls(&error) {
                Some(ours) => ours.clone(),
                None => Self::Invalid { source: error },
            },
        }
    }

    /// Ours, when one of our verifiers has returned it to rustls.
    pub(crate) fn in_rustls(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref::<Self>()
            }
            _ => None,
        }
    }

    /// As a verifier returns it to rustls. The peer sees the alert `certificate_unknown`, our log the reason.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// Checks the chain, the time and what the certificate was issued for; not whom it names.
///
/// # Errors
/// What rustls found, untranslated, so that the alert to the peer is the right one.
pub(crate) fn check_chain(
    usage: Usage,
    roots: &Arc<RootCertStore>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let provider = provider();
    match usage {
        Usage::Server => verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            roots,
            intermediates,
            now,
            provider.signature_verification_algorithms.all,
        ),
        Usage::Client => WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_client_cert(leaf, intermediates, now)
            .map(|_| ()),
    }
}

/// Checks that a server is a coordinator of `trust_domain`, by one of `roots`.
///
/// # Errors
/// As rustls is to be told.
pub(crate) fn check_coordinator(
    roots: &Arc<RootCertStore>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust_domain: &TrustDomain,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    check_chain(Usage::Server, roots, leaf, intermediates, now)?;
    check_identity(leaf, trust_domain, Usage::Server).map_err(VerifyError::into_rustls)?;
    Ok(())
}

/// Which of the roots `ca` a certificate leads to, by its place.
pub(crate) fn signer(
    usage: Usage,
    ca: &[CertificateDer<'static>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Option<usize> {
    ca.iter().position(|root| {
        trust::only(root).is_some_and(|only| check_chain(usage, &only, leaf, intermediates, now).is_ok())
    })
}

/// Checks whom a certificate names: one identity, of `trust_domain`, that may be used so.
///
/// # Errors
/// Which of the three it is not.
pub fn check_identity(
    leaf: &CertificateDer<'_>,
    trust_domain: &TrustDomain,
    usage: Usage,
) -> Result<Identity, VerifyError> {
    let identity = Identity::of_certificate(leaf).map_err(|source| VerifyError::Identity { source })?;
    if identity.trust_domain != *trust_domain {
        return Err(VerifyError::OtherTrustDomain {
            found: Box::new(identity),
            expected: trust_domain.clone(),
        });
    }
    if Usage::of(&identity.subject) != usage {
        return Err(VerifyError::WrongSubject {
            found: Box::new(identity),
            wanted: usage,
        });
    }
    Ok(identity)
}

/// Checks a certificate that need not be a peer's, as our own: a valid identity, and a chain that is good for
/// what that identity does.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_own(
    roots: &Arc<RootCertStore>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Identity, VerifyError> {
    let identity = Identity::of_certificate(leaf).map_err(|source| VerifyError::Identity { source })?;
    let usage = Usage::of(&identity.subject);
    check_chain(usage, roots, leaf, intermediates, now)
        .map_err(|error| VerifyError::from_rustls(error, usage))?;
    Ok(identity)
}
