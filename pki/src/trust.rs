//! Which roots are trusted: the content of `ca.crt`, as it is sent to hosts and kept by them.
//!
//! It never asks anybody. The invariant: a bundle that exists holds CAs of one trust domain, and one that was admitted
//! cuts its taker off neither from the coordinator that it talks to nor from its own certificate.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use crate::atomic::{self, PUBLIC_MODE};
use crate::certificate::{CertificateFacts, FactsError, pem_of};
use crate::files::{self, Credentials};
use crate::fingerprint::Fingerprint;
use crate::identity::TrustDomain;
use crate::issued::WriteError;
use crate::verify::{self, Usage, VerifyError};

/// The most roots at a time. A rotation needs two.
pub const MAX_ROOTS: usize = 8;

/// The longest bundle that is read, in bytes. A root has about 800.
const MAX_PEM_LEN: usize = 64 * 1024;

/// Every root that is trusted.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    certificates: Vec<CertificateDer<'static>>,
    trust_domain: TrustDomain,
}

/// Why a bundle was not taken. Reads on after "the new CA certificates are not taken".
#[derive(Debug, Clone, Error)]
pub enum TrustError {
    /// Far more than roots.
    #[error("they have {len} bytes, and at most {MAX_PEM_LEN} are read")]
    TooLong {
        /// The length in bytes.
        len: usize,
    },
    /// Broken PEM.
    #[error("they are not PEM: {problem}")]
    NotPem {
        /// What is wrong with them.
        problem: &'static str,
    },
    /// None, or too many.
    #[error("they are {count}; 1 to {MAX_ROOTS} are expected")]
    Count {
        /// How many.
        count: usize,
    },
    /// Not X.509.
    #[error("one of them is not X.509")]
    Unreadable {
        /// Why.
        #[source]
        source: FactsError,
    },
    /// A leaf.
    #[error("{subject} among them is no CA of a trust domain")]
    NotACa {
        /// Whom it names.
        subject: String,
    },
    /// Two fleets.
    #[error("{found} among them is another trust domain than {expected}")]
    OtherTrustDomain {
        /// Its trust domain.
        found: TrustDomain,
        /// Ours, or that of the first.
        expected: TrustDomain,
    },
    /// Our own certificate would be worth nothing.
    #[error("the CA that signed our own certificate ({root}) is not among them; get a new certificate first")]
    WithoutOurs {
        /// The root of our certificate.
        root: Fingerprint,
    },
    /// The next connection would fail.
    #[error("the CA of the coordinator that sent them ({root}) is not among them")]
    WithoutTheirs {
        /// The root of the coordinator's certificate.
        root: Fingerprint,
    },
    /// The next connection would fail.
    #[error("with them the certificate that the coordinator shows now is not accepted")]
    TheirsRefused {
        /// Why.
        #[source]
        source: Box<VerifyError>,
    },
}

/// By what the coordinator that sends CAs proves itself.
#[derive(Debug, Clone, Copy)]
pub struct Theirs<'a> {
    /// The root behind the connection that they came over (see [`PeerRoot`]).
    pub connected: Option<Fingerprint>,
    /// The certificate that it shows to who connects from now on, and any intermediate, PEM. Empty when it did not say.
    pub shows: &'a str,
}

impl TrustBundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// When it is not PEM, or holds anything but CAs of one trust domain.
    pub fn parse(pem: &str) -> Result<Self, TrustError> {
        if pem.len() > MAX_PEM_LEN {
            return Err(TrustError::TooLong { len: pem.len() });
        }
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TrustError::NotPem {
                problem: files::pem_problem(&error),
            })?;
        let mut trust_domain: Option<TrustDomain> = None;
        for certificate in &certificates {
            let facts =
                CertificateFacts::read(certificate).map_err(|source| TrustError::Unreadable { source })?;
            let Some(found) = facts.trust_domain else {
                return Err(TrustError::NotACa {
                    subject: facts.subject,
                });
            };
            match &trust_domain {
                Some(expected) if *expected != found => {
                    return Err(TrustError::OtherTrustDomain {
                        found,
                        expected: expected.clone(),
                    });
                }
                _ => trust_domain = Some(found),
            }
        }
        match trust_domain {
            Some(trust_domain) if certificates.len() <= MAX_ROOTS => Ok(Self {
                certificates,
                trust_domain,
            }),
            _ => Err(TrustError::Count {
                count: certificates.len(),
            }),
        }
    }

    /// Reads what a coordinator sent to somebody who has a certificate already, and sees whether it can be taken: the
    /// root of `ours` must be in it, and the coordinator's next handshake must succeed with it. A connection that is older
    /// than the coordinator's certificate says nothing about that; what the coordinator shows now does.
    ///
    /// # Errors
    /// As [`TrustBundle::parse`], and when taking it would cut us off.
    pub fn admit(pem: &str, ours: &Credentials, theirs: Theirs<'_>) -> Result<Self, TrustError> {
        let bundle = Self::parse(pem)?;
        let expected = &ours.identity().trust_domain;
        if bundle.trust_domain != *expected {
            return Err(TrustError::OtherTrustDomain {
                found: bundle.trust_domain,
                expected: expected.clone(),
            });
        }
        if !bundle.contains(ours.root()) {
            return Err(TrustError::WithoutOurs { root: ours.root() });
        }
        bundle.accepts(theirs)?;
        Ok(bundle)
    }

    fn accepts(&self, theirs: Theirs<'_>) -> Result<(), TrustError> {
        let shown: Vec<_> = CertificateDer::pem_slice_iter(theirs.shows.as_bytes())
            .filter_map(Result::ok)
            .collect();
        match (&shown[..], theirs.connected) {
            ([leaf, others @ ..], _) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(self.certificates.iter().cloned());
                let roots = Arc::new(roots);
                verify::check_coordinator(&roots, leaf, others, &self.trust_domain, UnixTime::now()).map_err(
                    |error| TrustError::TheirsRefused {
                        source: Box::new(VerifyError::from_rustls(error, Usage::Server)),
                    },
                )
            }
            ([], Some(root)) if !self.contains(root) => Err(TrustError::WithoutTheirs { root }),
            ([], _) => Ok(()),
        }
    }

    /// The root that a caller's chain leads to; of a caller that these roots have let in.
    pub(crate) fn root_of_caller(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Option<Fingerprint> {
        let at = match &self.certificates[..] {
            [_only] => 0,
            several => verify::signer(Usage::Client, several, leaf, others, UnixTime::now())?,
        };
        self.certificates.get(at).map(Fingerprint::of)
    }

    /// Whose CAs they are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Each root.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Each root by its digest, in the bundle's order.
    pub fn roots(&self) -> Vec<Fingerprint> {
        self.certificates.iter().map(Fingerprint::of).collect()
    }

    /// Whether a root is in it.
    pub fn contains(&self, root: Fingerprint) -> bool {
        self.certificates
            .iter()
            .any(|certificate| Fingerprint::of(certificate) == root)
    }

    /// As PEM.
    pub fn pem(&self) -> String {
        self.certificates.iter().map(pem_of).collect()
    }

    /// Puts it into `path` (0644), in the place of what is there, whole and durable.
    ///
    /// # Errors
    /// When the file system says no; what was there is then untouched.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        atomic::replace_durably(path, &self.pem(), PUBLIC_MODE)
    }
}

/// The root behind the coordinator that was last connected to, as [`crate::client_config_noting`] notes it.
#[derive(Debug, Clone, Default)]
pub struct PeerRoot(Arc<Mutex<Option<Fingerprint>>>);

impl PeerRoot {
    /// Of the newest handshake that succeeded; `None` before the first.
    pub fn get(&self) -> Option<Fingerprint> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, root: Fingerprint) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
    }
}

/// A store of one root.
pub(crate) fn only(root: &CertificateDer<'static>) -> Option<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).ok()?;
    Some(Arc::new(roots))
}
