//! A CA in a temporary directory, good certificates from our own code, and bad ones that it would never issue.

// Each test file is a crate of its own and uses its part of this.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use hostler_pki::{Credentials, Identity, TlsFiles};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use tempfile::TempDir;

pub(crate) const DOMAIN: &str = "example.org";
pub(crate) const COORDINATOR: &str = "spiffe://example.org/coordinator/c1";
pub(crate) const AGENT: &str = "spiffe://example.org/agent/node-1";
pub(crate) const ADMIN: &str = "spiffe://example.org/client/admin/ada";
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// How far any wait may go before the test is lost.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Fleet {
    dir: TempDir,
    pub(crate) authority: Authority,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self::of_domain(DOMAIN)
    }

    pub(crate) fn of_domain(domain: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::init(dir.path(), domain.parse().unwrap(), DEFAULT_CA_LIFETIME).unwrap();
        Self { dir, authority }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Issues as our own code does.
    pub(crate) fn issue(&self, identity: &str) -> TlsFiles {
        let identity: Identity = identity.parse().unwrap();
        let stem = identity.subject.to_string().replace('/', "-");
        let issued = self.authority.issue(&identity, &IssueOptions::default()).unwrap();
        issued.write(self.path(), &stem, Existing::Replace).unwrap();
        self.files(&stem)
    }

    pub(crate) fn credentials(&self, identity: &str) -> Credentials {
        Credentials::load(&self.issue(identity)).unwrap()
    }

    pub(crate) fn files(&self, stem: &str) -> TlsFiles {
        TlsFiles {
            ca: self.path().join("ca.crt"),
            certificate: self.path().join(format!("{stem}.crt")),
            key: self.path().join(format!("{stem}.key")),
        }
    }

    /// Signs whatever `change` makes of a good client certificate that names `uris`.
    pub(crate) fn forge(
        &self,
        stem: &str,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> TlsFiles {
        let ca = fs::read_to_string(self.path().join("ca.crt")).unwrap();
        let ca_key = fs::read_to_string(self.path().join("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&ca_key).unwrap()).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now - DAY;
        params.not_after = now + DAY;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let files = self.files(stem);
        fs::write(&files.certificate, certificate.pem()).unwrap();
        write_key(&files.key, &key.serialize_pem());
        files
    }
}

pub(crate) fn write_key(path: &PathBuf, pem: &str) {
    fs::write(path, pem).unwrap();
    chmod(path, 0o600);
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The whole chain of an error in one line, as people see it.
pub(crate) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    hostler_common::error::Chain(error).to_string()
}

/// Runs `openssl`; its output, and whether it was content.
// Product code starts no program from here; the test asks another implementation.
#[allow(clippy::disallowed_methods)]
pub(crate) fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}
