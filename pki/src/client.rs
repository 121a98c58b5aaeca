//! The caller's side of a handshake: TLS 1.3, our own certificate shown, and a coordinator's identity of our own
//! trust domain demanded.
//!
//! Host names are not checked. A coordinator is reached by addresses that change, through tunnels and
//! load balancers; what does not change is its SPIFFE identity, which only our private CA gives away, and only
//! with `serverAuth`. A certificate of an agent, or of a client, can therefore never serve.

use std::sync::Arc;

use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::TlsConfigError;
use crate::demand::{self, Demand};
use crate::files::Credentials;
use crate::fingerprint::Fingerprint;
use crate::identity::TrustDomain;
use crate::trust::PeerRoot;
use crate::verify::{self, Usage};

/// A configuration for [`crate::channel()`] or `tokio_rustls::TlsConnector`.
///
/// # Errors
/// When the credentials are a coordinator's, or rustls does not take the protocol version.
pub fn client_config(credentials: &Credentials) -> Result<Arc<ClientConfig>, TlsConfigError> {
    client_config_noting(credentials, &PeerRoot::default())
}

/// As [`client_config`]; each handshake that succeeds leaves the coordinator's root in `peer`.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_noting(
    credentials: &Credentials,
    peer: &PeerRoot,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    credentials.fit(Usage::Client)?;
    let demand = OurCoordinator {
        roots: Arc::clone(&credentials.roots),
        ca: Arc::clone(&credentials.ca),
        peer: peer.clone(),
        trust_domain: credentials.identity().trust_domain.clone(),
    };
    // Ours is shown whatever CAs the server hints at: then its refusal says what is wrong with it.
    let ours = SingleCertAndKey::from(Arc::clone(&credentials.certified));
    let config = demand::caller(demand)?.with_client_cert_resolver(Arc::new(ours));
    Ok(demand::finished(config))
}

/// A coordinator of our own trust domain, by any root that is trusted.
#[derive(Debug)]
struct OurCoordinator {
    roots: Arc<RootCertStore>,
    /// The same roots, to tell which one it was.
    ca: Arc<[CertificateDer<'static>]>,
    peer: PeerRoot,
    trust_domain: TrustDomain,
}

impl Demand for OurCoordinator {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        verify::check_coordinator(&self.roots, leaf, others, &self.trust_domain, now)?;
        if let Some(at) = verify::signer(Usage::Server, &self.ca, leaf, others, now) {
            self.peer.note(Fingerprint::of(&self.ca[at]));
        }
        Ok(())
    }
}
