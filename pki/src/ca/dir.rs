//! The CA's directory: `ca.crt` with every trusted root, the one that signs first, and the keys.
//!
//! It reads and never writes. The invariant: which root signs is said by `ca.crt` alone; its key is `ca.key`, or
//! `next.key` for the moment in which a rotation has put its root first and not yet moved the key.

use std::path::{Path, PathBuf};

use hostler_common::units::UnixMillis;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroize;

use super::error::AuthorityError;
use crate::certificate::{CertificateFacts, trust_domain_of};
use crate::files::{self, CredentialsError};
use crate::fingerprint::Fingerprint;
use crate::identity::TrustDomain;
use crate::issued::CA_STEM;

/// Where the roots are.
pub(super) fn certificate_path(dir: &Path) -> PathBuf {
    dir.join(format!("{CA_STEM}.crt"))
}

/// Where the key that signs is.
pub(super) fn key_path(dir: &Path) -> PathBuf {
    dir.join(format!("{CA_STEM}.key"))
}

/// Where the key is that will sign.
pub(super) fn next_key_path(dir: &Path) -> PathBuf {
    dir.join("next.key")
}

/// One root.
#[derive(Debug, Clone)]
pub struct Root {
    /// What people call it: the 8 digits in its name, which every certificate that it signed shows as its issuer.
    pub id: String,
    /// Its subject, as `CN=Hostler CA 3f9a12c0 example.org`.
    pub name: String,
    /// Its digest.
    pub fingerprint: Fingerprint,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// Whom it vouches for.
    pub trust_domain: TrustDomain,
    pub(super) certificate: CertificateDer<'static>,
    key_info: Vec<u8>,
}

impl Root {
    /// Whether `key` is its key.
    pub(super) fn has(&self, key: &KeyPair) -> bool {
        self.key_info == key.subject_public_key_info()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What keeps it from being a root of ours.
    pub(super) fn read(certificate: CertificateDer<'static>) -> Result<Self, &'static str> {
        let facts = CertificateFacts::read(&certificate).map_err(|_| "it is not X.509")?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| "it is not X.509")?;
        if !facts.is_ca {
            return Err("it may not sign");
        }
        let trust_domain = trust_domain_of(&parsed).ok_or("it names no trust domain")?;
        let key_info = parsed.public_key().raw.to_vec();
        let fingerprint = Fingerprint::of(&certificate);
        let in_name = facts
            .subject
            .strip_prefix("CN=Hostler CA ")
            .and_then(|rest| rest.split(' ').next())
            .filter(|word| word.len() == 8 && word.bytes().all(|b| b.is_ascii_hexdigit()));
        let id = in_name.map_or_else(
            || fingerprint.to_string().replace(':', "")[..8].to_lowercase(),
            str::to_owned,
        );
        Ok(Self {
            id,
            name: facts.subject,
            fingerprint,
            not_after: facts.not_after,
            trust_domain,
            certificate,
            key_info,
        })
    }
}

/// Which of the two files a directory holds. One that we may not look at counts as there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Neither,
    Both,
}

/// Refuses a directory that holds only one of the two files.
pub(super) fn not_half(dir: &Path) -> Result<Found, AuthorityError> {
    let (certificate, key) = (certificate_path(dir), key_path(dir));
    let is_missing = |path: &Path| {
        let found = path.symlink_metadata();
        found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let (there, missing) = match (is_missing(&certificate), is_missing(&key)) {
        (false, true) => (certificate, key),
        (true, false) => (key, certificate),
        (true, true) => return Ok(Found::Neither),
        (false, false) => return Ok(Found::Both),
    };
    Err(AuthorityError::Half { there, missing })
}

/// Refuses a directory without a CA. A new one would be no cure where one was: nobody trusts it.
fn there_is_one(dir: &Path) -> Result<(), AuthorityError> {
    match not_half(dir)? {
        Found::Both => Ok(()),
        Found::Neither => Err(AuthorityError::Absent { dir: dir.to_owned() }),
    }
}

fn load(dir: &Path) -> impl Fn(CredentialsError) -> AuthorityError {
    let dir = dir.to_owned();
    move |source| AuthorityError::Load {
        dir: dir.clone(),
        source: Box::new(source),
    }
}

fn not_ours(dir: &Path) -> impl Fn(&'static str) -> AuthorityError {
    let path = certificate_path(dir);
    move |problem| AuthorityError::NotOurs {
        path: path.clone(),
        problem,
    }
}

/// Every root in `ca.crt`, the one that signs first.
pub(super) fn roots(dir: &Path) -> Result<Vec<Root>, AuthorityError> {
    there_is_one(dir)?;
    let certificates = files::read_certificates(&certificate_path(dir)).map_err(load(dir))?;
    certificates
        .into_iter()
        .map(|certificate| Root::read(certificate).map_err(not_ours(dir)))
        .collect()
}

/// The root that signs, and its key.
pub(super) fn signing(dir: &Path) -> Result<(Root, KeyPair), AuthorityError> {
    there_is_one(dir)?;
    // The other roots are looked at by who rotates; they do not sign.
    let first = files::read_certificates(&certificate_path(dir))
        .map_err(load(dir))?
        .swap_remove(0);
    let root = Root::read(first).map_err(not_ours(dir))?;
    let usual = key(dir, &key_path(dir))?;
    if root.has(&usual) {
        return Ok((root, usual));
    }
    match next_key(dir)?.filter(|next| root.has(next)) {
        Some(next) => Ok((root, next)),
        None => Err(not_ours(dir)("ca.key does not belong to it")),
    }
}

/// The key in `path`.
pub(super) fn key(dir: &Path, path: &Path) -> Result<KeyPair, AuthorityError> {
    let mut der = files::read_key_der(path).map_err(load(dir))?;
    let key = KeyPair::from_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
    der.zeroize();
    key.map_err(|_| not_ours(dir)("its key is not ECDSA P-256"))
}

/// The key in `next.key`, if there is one.
pub(super) fn next_key(dir: &Path) -> Result<Option<KeyPair>, AuthorityError> {
    let path = next_key_path(dir);
    match path.symlink_metadata() {
        Err(_) => Ok(None),
        Ok(_) => key(dir, &path).map(Some),
    }
}
