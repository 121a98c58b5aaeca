//! The caller's side of a handshake: TLS 1.3, our own certificate shown, and a coordinator's identity of our own
//! trust domain demanded.
//!
//! Host names are not checked. A coordinator is reached by addresses that change, through tunnels and
//! load balancers; what does not change is its SPIFFE identity, which only our private CA gives away, and only
//! with `serverAuth`. A certificate of an agent, or of a client, can therefore never serve.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::files::Credentials;
use crate::fingerprint::Fingerprint;
use crate::identity::TrustDomain;
use crate::trust::PeerRoot;
use crate::verify::{self, Usage};
use crate::{ALPN, TlsConfigError, provider};

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
    let verifier = CoordinatorVerifier {
        roots: Arc::clone(&credentials.roots),
        ca: Arc::clone(&credentials.ca),
        peer: peer.clone(),
        trust_domain: credentials.identity().trust_domain.clone(),
        provider: provider(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsConfigError::Protocol { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        // Shown whatever CAs the server hints at: then its refusal says what is wrong with ours.
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
            &credentials.certified,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct CoordinatorVerifier {
    roots: Arc<RootCertStore>,
    /// The same roots, to tell which one it was.
    ca: Arc<[CertificateDer<'static>]>,
    peer: PeerRoot,
    trust_domain: TrustDomain,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify::check_chain(Usage::Server, &self.roots, end_entity, intermediates, now)?;
        verify::check_identity(end_entity, &self.trust_domain, Usage::Server)
            .map_err(verify::VerifyError::into_rustls)?;
        if let Some(at) = verify::signer(Usage::Server, &self.ca, end_entity, intermediates, now) {
            self.peer.note(Fingerprint::of(&self.ca[at]));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
