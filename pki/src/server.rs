//! The coordinator's side of a handshake: TLS 1.3, a client certificate required, and an agent's or client's
//! identity of our own trust domain in it.
//!
//! It authenticates and never authorises (the coordinator's table does). The invariant: a peer without a valid
//! identity fails inside the handshake, so no byte of it ever reaches an rpc.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use hostler_common::error::Chain;
use hostler_common::units::UnixMillis;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::{CertificateFacts, FactsError};
use crate::files::Credentials;
use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, IdentityError, TrustDomain};
use crate::refusal::{tls_error, without_link};
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

tokio::task_local! {
    /// Why the verifier says that a certificate is revoked, for the handshake that this task is in. rustls has an
    /// alert for it and, unlike for its other errors, no place for our words.
    static REVOKED: RefCell<Option<VerifyError>>;
}

/// Shakes hands as `acceptor.accept(io)` does, and knows more when it fails: then [`explain_failed_handshake`] says whose
/// certificate was revoked, and when.
///
/// # Errors
/// As `tokio_rustls::TlsAcceptor`.
pub async fn accept<IO>(acceptor: &TlsAcceptor, io: IO) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let shaking = async {
        let accepted = acceptor.accept(io).await;
        let revoked = REVOKED.try_with(RefCell::take).unwrap_or_default();
        match (accepted, revoked) {
            (Err(_), Some(why)) => Err(io::Error::new(io::ErrorKind::InvalidData, why.into_rustls())),
            (accepted, _) => accepted,
        }
    };
    REVOKED.scope(RefCell::new(None), shaking).await
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
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let found = verify::check_identity(end_entity, &self.trust_domain, Usage::Client)
            .map_err(VerifyError::into_rustls)?;
        let facts = CertificateFacts::read(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if let Some(at) = self.revocations.revoked(&found.subject, facts.not_before) {
            let found = Box::new(found);
            // Outside of `accept` nobody waits for the sentence; the alert says the rest.
            let _ = REVOKED.try_with(|why| why.replace(Some(VerifyError::Revoked { found, at })));
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
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
