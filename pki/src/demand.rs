//! What a caller demands of the certificate that a server shows, as rustls asks for it: the one verifier of
//! coordinators' certificates.
//!
//! It judges no certificate itself. The invariant: a signature is checked by rustls for every demand alike, and
//! nothing is sent before the demand is met.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::verify::VerifyError;
use crate::{ALPN, TlsConfigError, provider};

/// What is asked of a coordinator's certificate.
pub(crate) trait Demand: fmt::Debug + Send + Sync + 'static {
    /// Whether the chain that was shown meets it.
    ///
    /// # Errors
    /// As rustls is to be told.
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error>;
}

/// The beginning of a caller's configuration: TLS 1.3, to a server that meets `demand`.
///
/// # Errors
/// When rustls does not take the protocol version.
pub(crate) fn caller(
    demand: impl Demand,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsConfigError> {
    let verifier = Verifier {
        demand,
        provider: provider(),
    };
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsConfigError::Protocol { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// The end of it: HTTP/2, and each connection asks anew.
pub(crate) fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct Verifier<D> {
    demand: D,
    provider: Arc<CryptoProvider>,
}

impl<D: Demand> ServerCertVerifier for Verifier<D> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.demand.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
            .map_err(|_| VerifyError::NotItsKey.into_rustls())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
