//! The coordinator's side of a handshake: TLS 1.3, a client certificate required, and an agent's or client's
//! identity of our own trust domain in it.
//!
//! It authenticates and never authorises (the coordinator's table does). The invariant: a peer without a valid
//! identity fails inside the handshake, so no byte of it ever reaches an rpc.

use std::sync::Arc;

use hostler_common::units::UnixMillis;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use crate::certificate::{CertificateFacts, FactsError};
use crate::files::Credentials;
use crate::fingerprint::Fingerprint;
use crate::handshake::{Seen, saw};
use crate::identity::{Identity, IdentityError, TrustDomain};
use crate::revocation::Revocations;
use crate::trust::TrustBundle;
use crate::verify::{self, Usage, VerifyError};
use crate::{ALPN, TlsConfigError, provider};

/// A configuration for `tokio_rustls::TlsAcceptor`.
///
/// Sessions are not resumed: each connection shows its certificate again, so that a revoked one cannot come
/// back by a ticket.
///
/// `revocations` is asked inside each handshake; who is revoked is told so by the alert `certificate_revoked`.
///
/// # Errors
/// When the credentials are not a coordinator's, or rustls does not take the roots or the protocol version.
pub fn server_config(
    credentials: &Credentials,
    revocations: Revocations,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    credentials.fit(Usage::Server)?;
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::clone(&credentials.roots), provider())
        .build()
        .map_err(|source| TlsConfigError::Verifier { source })?;
    let verifier = PeerVerifier {
        inner,
        trust_domain: credentials.identity().trust_domain.clone(),
        revocations,
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsConfigError::Protocol { source })?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
            &credentials.certified,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Who is at the other end of a finished handshake.
///
/// # Errors
/// When there is no certificate or no identity in it; [`server_config`] lets no such peer through.
pub fn peer_identity(connection: &rustls::ServerConnection) -> Result<Identity, IdentityError> {
    let leaf = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or(IdentityError::NoCertificate)?;
    Identity::of_certificate(leaf)
}

/// What counts of the certificate at the other end of a finished handshake. TLS looks at it once; whoever keeps a
/// connection open looks at it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it names.
    pub identity: Identity,
    /// Its first moment: what [`Revocations`] are asked with.
    pub not_before: UnixMillis,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// Its digest.
    pub fingerprint: Fingerprint,
    /// The root that it leads to.
    pub root: Fingerprint,
}

/// Why a peer's certificate does not count, though the handshake is done.
#[derive(Debug, Error)]
pub enum PeerError {
    /// It names nobody; [`server_config`] lets no such peer through.
    #[error("the certificate has no valid identity")]
    Identity(#[from] IdentityError),
    /// Its root, or its time, went during the handshake.
    #[error("the certificate of {identity} is of no CA that is trusted now")]
    NotTrusted {
        /// Whom it names.
        identity: Box<Identity>,
    },
}

/// What counts of the certificate at the other end of a finished handshake, which `trusted` let in.
///
/// # Errors
/// When it does not count.
pub fn peer_certificate(
    connection: &rustls::ServerConnection,
    trusted: &TrustBundle,
) -> Result<PeerCertificate, PeerError> {
    let (leaf, others) = connection
        .peer_certificates()
        .and_then(|chain| chain.split_first())
        .ok_or(IdentityError::NoCertificate)?;
    let facts = CertificateFacts::read(leaf)
        .map_err(|FactsError::Parse { source }| IdentityError::Unreadable { source })?;
    let identity = facts.identity?;
    let Some(root) = trusted.root_of_caller(leaf, others) else {
        let identity = Box::new(identity);
        return Err(PeerError::NotTrusted { identity });
    };
    Ok(PeerCertificate {
        identity,
        not_before: facts.not_before,
        not_after: facts.not_after,
        fingerprint: Fingerprint::of(leaf),
        root,
    })
}

/// WebPKI's verifier, and then our own question: who is it?
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
    revocations: Revocations,
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refused = |error| {
            let says = Identity::of_certificate(end_entity).ok();
            saw(Seen { says, why: None });
            error
        };
        let chain = self.inner.verify_client_cert(end_entity, intermediates, now);
        let verified = chain.map_err(refused)?;
        let found = verify::check_identity(end_entity, &self.trust_domain, Usage::Client)
            .map_err(VerifyError::into_rustls)?;
        let facts = CertificateFacts::read(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if let Some(at) = self.revocations.revoked(&found.subject, facts.not_before) {
            let found = Box::new(found);
            let why = Some(VerifyError::Revoked { found, at });
            saw(Seen { says: None, why });
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let refused = |error| {
            let says = Identity::of_certificate(cert).ok();
            let why = Some(VerifyError::NotItsKey);
            saw(Seen { says, why });
            error
        };
        let signature = self.inner.verify_tls13_signature(message, cert, dss);
        signature.map_err(refused)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
