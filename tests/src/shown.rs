//! Certificates as anybody may show them: also those that our own code would neither issue nor load.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::TestCa;

/// A certificate, what is shown behind it, and the key that is used with it.
#[derive(Debug)]
pub struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Shown {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl TestCa {
    /// A good certificate for `path`.
    ///
    /// # Panics
    /// When it cannot be issued.
    pub fn shown(&self, path: &str) -> Shown {
        let files = self.files(path);
        let chain = CertificateDer::pem_file_iter(&files.certificate).expect("a file");
        Shown {
            chain: chain.collect::<Result<_, _>>().expect("certificates"),
            key: PrivateKeyDer::from_pem_file(&files.key).expect("a key"),
        }
    }

    /// A certificate for `paths` that only a broken or hostile CA would sign: whatever `change` makes of a good one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn forged(&self, paths: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = self.sign(&key, paths, change);
        Shown {
            chain: vec![certificate],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

impl Shown {
    /// The same certificate, with a key that is not its own.
    #[must_use]
    pub fn with_key_of(self, other: &Self) -> Self {
        Self {
            key: other.key.clone_key(),
            ..self
        }
    }

    /// The same, with a root behind it, as the port for enrolment shows it.
    #[must_use]
    pub fn with_root(mut self, root: CertificateDer<'static>) -> Self {
        self.chain.push(root);
        self
    }

    fn resolver(&self) -> Arc<SingleCertAndKey> {
        let key = provider().key_provider.load_private_key(self.key.clone_key());
        // Not from_der, which would see that the two do not belong together.
        let certified = CertifiedKey::new(self.chain.clone(), key.expect("a key of a known kind"));
        Arc::new(SingleCertAndKey::from(certified))
    }

    /// A server that shows it to anybody.
    ///
    /// # Panics
    /// When TLS 1.3 is not to be had.
    pub fn server(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.resolver());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// A client that shows whatever it is given, and takes any server.
///
/// # Panics
/// When TLS 1.3 is not to be had.
pub fn careless(shown: Option<&Shown>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAnybody));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => builder.with_client_cert_resolver(shown.resolver()),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Opens TLS as given, sends the beginning of HTTP/2, and tells how many bytes of it came back before the end.
///
/// # Panics
/// When nobody listens.
pub async fn answered(address: SocketAddr, config: Arc<ClientConfig>) -> usize {
    let tcp = TcpStream::connect(address).await.expect("somebody listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let Ok(mut tls) = TlsConnector::from(config).connect(name, tcp).await else {
        return 0;
    };
    // A write may fail already: the refusal of a client certificate comes after TLS 1.3's handshake.
    let _ = tls
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let mut some = [0; 64];
    tls.read(&mut some).await.unwrap_or(0)
}

#[derive(Debug)]
struct TakesAnybody;

impl ServerCertVerifier for TakesAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
