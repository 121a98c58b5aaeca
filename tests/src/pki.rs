//! A CA in a directory of the test, and certificates of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use hostler_pki::{Credentials, TlsFiles};

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

    /// A client's TLS with a certificate for `path`.
    ///
    /// # Panics
    /// When it cannot be issued.
    pub fn client_config(&self, path: &str) -> Arc<rustls::ClientConfig> {
        let credentials = Credentials::load(&self.files(path)).expect("the credentials load");
        hostler_pki::client_config(&credentials).expect("a client configuration")
    }
}
