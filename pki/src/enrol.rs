//! The TLS of enrolment: a host that has a token and no certificate yet calls a coordinator that proves itself by the
//! root which the token pins.
//!
//! It authenticates the coordinator only; who calls is said by the token, inside. The invariant: nothing is sent before
//! the chain that was shown leads to the pinned root and its leaf is a coordinator's identity of that root's trust
//! domain.
//!
//! A coordinator's chain ends with its root here, which TLS does not ask for (RFC 8446, 4.4.2 lets it be left out):
//! a caller that only knows the root's digest needs to see it.

use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};
use tonic::transport::Channel;

use crate::address::CoordinatorAddress;
use crate::certificate::CertificateFacts;
use crate::channel::{self, ChannelError, ChannelOptions};
use crate::demand::{self, Demand};
use crate::files::Credentials;
use crate::fingerprint::Fingerprint;
use crate::verify::{self, Usage, VerifyError};
use crate::{ALPN, TlsConfigError, provider};

/// A configuration for the listener that serves enrolment and nothing else: it asks callers for no certificate.
///
/// # Errors
/// When the credentials are not a coordinator's, or rustls does not take the protocol version.
pub fn enrol_server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsConfigError> {
    credentials.fit(Usage::Server)?;
    let mut chain = credentials.certified.cert.clone();
    chain.push(credentials.root_certificate().clone());
    let shown = CertifiedKey::new(chain, Arc::clone(&credentials.certified.key));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsConfigError::Protocol { source })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A configuration for a host that enrols and trusts the root `pin` alone.
///
/// # Errors
/// When rustls does not take the protocol version.
pub fn enrol_client_config(pin: Fingerprint) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let config = demand::caller(PinnedRoot { pin })?.with_no_client_auth();
    Ok(demand::finished(config))
}

/// A channel to the enrolment listener at `address`, up and proven to lead to the root `pin`.
///
/// # Errors
/// Why there is none.
pub async fn connect_to_enrol(
    address: &CoordinatorAddress,
    pin: Fingerprint,
    options: ChannelOptions,
) -> Result<Channel, ChannelError> {
    let config = enrol_client_config(pin).map_err(|source| ChannelError::Setup { source })?;
    let address = address.clone();
    channel::connect(&address, config, options)
        .await
        .map_err(|error| match error {
            ChannelError::ServerCertificate { source, .. } => ChannelError::NotPinned { address, source },
            // It wants to see one, which no enrolment listener does.
            ChannelError::CertificateRefused {
                alert: AlertDescription::CertificateRequired,
                ..
            } => ChannelError::NotForEnrolment { address },
            other => other,
        })
}

/// A coordinator of the root with this digest, which it shows.
#[derive(Debug)]
struct PinnedRoot {
    pin: Fingerprint,
}

impl Demand for PinnedRoot {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let shown = others.last().map(Fingerprint::of);
        let root = others
            .iter()
            .find(|shown| Fingerprint::of(shown) == self.pin)
            .ok_or(VerifyError::OtherRoot {
                pinned: self.pin,
                shown,
            })
            .map_err(VerifyError::into_rustls)?;
        let trust_domain = CertificateFacts::read(root)
            .ok()
            .and_then(|facts| facts.trust_domain)
            .ok_or(VerifyError::RootWithoutDomain)
            .map_err(VerifyError::into_rustls)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        verify::check_coordinator(&Arc::new(roots), leaf, others, &trust_domain, now)
    }
}
