//! The coordinator's side of a handshake: TLS 1.3, a client certificate required, and an agent's or client's
//! identity of our own trust domain in it.
//!
//! It authenticates and never authorises (the coordinator's table does). The invariant: a peer without a valid
//! identity fails inside the handshake, so no byte of it ever reaches an rpc.

use std::io;
use std::sync::Arc;

use hostler_common::error::Chain;
use hostler_common::units::UnixMillis;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::files::Credentials;
use crate::identity::{Identity, IdentityError, TrustDomain, plain};
use crate::refusal::{tls_error, without_link};
use crate::verify::{self, Usage, VerifyError};
use crate::{ALPN, TlsConfigError, provider};

/// A configuration for `tokio_rustls::TlsAcceptor`.
///
/// Sessions are not resumed: each connection shows its certificate again, so that a revoked one cannot come
/// back by a ticket.
///
/// # Errors
/// When the credentials are not a coordinator's, or rustls does not take the roots or the protocol version.
pub fn server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsConfigError> {
    credentials.fit(Usage::Server)?;
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::clone(&credentials.roots), provider())
        .build()
        .map_err(|source| TlsConfigError::Verifier { source })?;
    let verifier = PeerVerifier {
        inner,
        trust_domain: credentials.identity().trust_domain.clone(),
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

/// The last moment of the certificate at the other end of a finished handshake. TLS looks at it once; whoever keeps
/// a connection open looks at it again.
///
/// # Errors
/// As [`peer_identity`].
pub fn peer_not_after(connection: &rustls::ServerConnection) -> Result<UnixMillis, IdentityError> {
    let leaf = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or(IdentityError::NoCertificate)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|source| IdentityError::Unreadable {
        source: plain(source),
    })?;
    Ok(UnixMillis(
        parsed.validity().not_after.timestamp().saturating_mul(1000),
    ))
}

/// Why a handshake failed, for the log: what is wrong with the peer's certificate, or with its TLS. `error` is what
/// `tokio_rustls::TlsAcceptor` returned.
pub fn explain_failed_handshake(error: &io::Error) -> String {
    match tls_error(error) {
        Some(rustls::Error::NoCertificatesPresented) => "the peer showed no certificate".to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => format!("the peer did not accept us: alert {alert:?}"),
        Some(invalid @ rustls::Error::InvalidCertificate(_)) => {
            let why = VerifyError::from_rustls(invalid.clone(), Usage::Client);
            format!("the peer's certificate is not accepted: {}", Chain(&why))
        }
        Some(other) => format!("the peer does not speak TLS as we do: {other}"),
        None => format!("the peer went away: {}", without_link(&error.to_string())),
    }
}

/// WebPKI's verifier, and then our own question: who is it?
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
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
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        verify::check_identity(end_entity, &self.trust_domain, Usage::Client)
            .map_err(VerifyError::into_rustls)?;
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
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
