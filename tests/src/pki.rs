//! A CA in a directory of the test, and certificates of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_common::units::UnixMillis;
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use hostler_pki::{Credentials, TlsFiles};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The trust domain of the tests.
pub const TRUST_DOMAIN: &str = "fleet.test";

/// A CA for one test.
#[derive(Debug, Clone)]
pub struct TestCa {
    dir: PathBuf,
}

impl TestCa {
    /// Makes a CA in `dir`.
    ///
    /// # Panics
    /// When the directory cannot be written.
    pub fn make(dir: &Path) -> Self {
        let domain = TRUST_DOMAIN.parse().expect("a trust domain");
        Authority::init(dir, domain, DEFAULT_CA_LIFETIME).expect("the CA is made");
        Self { dir: dir.to_owned() }
    }

    /// The files of a certificate for `path`, as `client/viewer/v`; issued at the first call.
    ///
    /// # Panics
    /// When it cannot be issued.
    pub fn files(&self, path: &str) -> TlsFiles {
        let stem = path.replace('/', "-");
        let files = TlsFiles {
            ca: self.dir.join("ca.crt"),
            certificate: self.dir.join(format!("{stem}.crt")),
            key: self.dir.join(format!("{stem}.key")),
        };
        if !files.certificate.exists() {
            let identity = format!("spiffe://{TRUST_DOMAIN}/{path}")
                .parse()
                .expect("an identity");
            let mut options = IssueOptions::default();
            if path.starts_with("coordinator/") {
                options.dns_names = vec!["localhost".to_owned()];
                options.ip_addresses = vec![std::net::Ipv4Addr::LOCALHOST.into()];
            }
            let authority = Authority::open(&self.dir).expect("the CA opens");
            let issued = authority
                .issue(&identity, &options)
                .expect("a certificate is issued");
            issued
                .write(&self.dir, &stem, Existing::Keep)
                .expect("the certificate is written");
        }
        files
    }

    /// Issues the certificate for `path` anew, as for somebody who was revoked until now.
    ///
    /// # Panics
    /// When it cannot be issued.
    pub fn issue_anew(&self, path: &str) {
        let identity = format!("spiffe://{TRUST_DOMAIN}/{path}")
            .parse()
            .expect("an identity");
        let options = IssueOptions {
            after: Some(UnixMillis::now()),
            ..IssueOptions::default()
        };
        let authority = Authority::open(&self.dir).expect("the CA opens");
        let issued = authority.issue(&identity, &options);
        issued
            .expect("a certificate is issued")
            .write(&self.dir, &path.replace('/', "-"), Existing::Replace)
            .expect("the certificate is written");
    }

    /// Signs whatever `change` makes of a good caller's certificate for `paths` and `key`.
    pub(crate) fn sign(
        &self,
        key: &KeyPair,
        paths: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let read = |name: &str| std::fs::read_to_string(self.dir.join(name)).expect("a file of the CA");
        let ca_key = KeyPair::from_pem(&read("ca.key")).expect("the CA's key");
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), ca_key).expect("the CA");
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for path in paths {
            let uri = match path.contains("://") {
                true => (*path).to_owned(),
                false => format!("spiffe://{TRUST_DOMAIN}/{path}"),
            };
            let uri = uri.try_into().expect("an IA5 string");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        change(&mut params);
        let certificate = params.signed_by(key, &issuer).expect("it is signed");
        certificate.der().clone()
    }

    /// Its certificate.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.dir.join("ca.crt")).expect("the CA's certificate")
    }

    /// A client's TLS with a certificate for `path`.
    ///
    /// # Panics
    /// When it cannot be issued.
    pub fn client_config(&self, path: &str) -> Arc<rustls::ClientConfig> {
        let credentials = Credentials::load(&self.files(path)).expect("the credentials load");
        hostler_pki::client_config(&credentials).expect("a client configuration")
    }
}
