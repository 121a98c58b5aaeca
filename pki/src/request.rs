//! A certificate for a key that never leaves its host: the request that the host makes (PKCS #10), and the one thing
//! that the CA takes from it.
//!
//! It signs nothing but a request with its own key. The invariant: of a request only the public key counts, and only
//! when the request's signature shows that who asks has the key; the names in it are ignored.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::{Zeroize, Zeroizing};

use crate::atomic::{self, SECRET_MODE};
use crate::certificate::{CertificateFacts, FactsError};
use crate::files::{self, CredentialsError};
use crate::identity::IdentityError;
use crate::issued::{Issued, WriteError};

/// The longest request that is read, in bytes. Ours have about 250.
pub const MAX_REQUEST_LEN: usize = 8 * 1024;

/// Why the CA does not take a request. Reads on after "the certificate request is refused".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Not a request, or far more than one.
    #[error("it has {len} bytes, and a request has at most {MAX_REQUEST_LEN}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not PKCS #10.
    #[error("it is not a certificate signing request (PKCS #10, DER)")]
    NotARequest,
    /// Something follows it.
    #[error("{count} bytes follow it")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A key of another kind.
    #[error("its key is not ECDSA P-256, the only kind that this fleet uses")]
    KeyType,
    /// Signed in another way.
    #[error("it is not signed with ECDSA and SHA-256, the only way that this fleet uses")]
    SignatureType,
    /// Who asks does not have the key, or somebody altered the request.
    #[error("its signature does not verify with its own key; make a new request")]
    Signature,
}

/// The public key of a request whose signature verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestedKey {
    point: Vec<u8>,
}

impl RequestedKey {
    /// Takes the key out of a request.
    ///
    /// # Errors
    /// The first thing that is wrong with the request.
    pub(crate) fn read(csr_der: &[u8]) -> Result<Self, RequestError> {
        if csr_der.len() > MAX_REQUEST_LEN {
            return Err(RequestError::TooLong { len: csr_der.len() });
        }
        let (rest, request) =
            X509CertificationRequest::from_der(csr_der).map_err(|_| RequestError::NotARequest)?;
        if !rest.is_empty() {
            return Err(RequestError::TrailingBytes { count: rest.len() });
        }
        let info = &request.certification_request_info;
        let point = p256_point(&info.subject_pki).ok_or(RequestError::KeyType)?;
        if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(RequestError::SignatureType);
        }
        // ring refuses a point that is not on the curve.
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| RequestError::Signature)?;
        Ok(Self {
            point: point.to_vec(),
        })
    }
}

/// The SHA-256 of the public key (its point, uncompressed) in a request whose signature verifies: whoever asks again with
/// the same key is known by it.
///
/// # Errors
/// The first thing that is wrong with the request.
pub fn key_digest(csr_der: &[u8]) -> Result<[u8; 32], RequestError> {
    let key = RequestedKey::read(csr_der)?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.point);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Ok(bytes)
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The point of a P-256 key; `None` for any other key.
fn p256_point<'a>(key: &'a SubjectPublicKeyInfo<'_>) -> Option<&'a [u8]> {
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let is_p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_EC_P256;
    is_p256.then_some(&*key.subject_public_key.data)
}

/// A key of our own and the request for its certificate. The key is wiped when this is dropped.
pub struct KeyRequest {
    csr_der: Vec<u8>,
    key_pem: Zeroizing<String>,
    point: Vec<u8>,
}

/// Why there is no request, or no certificate for it.
#[derive(Debug, Error)]
pub enum KeyRequestError {
    /// The cryptography failed.
    #[error("cannot make a key and its certificate request")]
    Make {
        /// What rcgen says.
        #[source]
        source: rcgen::Error,
    },
    /// The key of an earlier try cannot be read.
    #[error("cannot go on with the key of an earlier try; move {} away to begin anew", path.display())]
    Pending {
        /// The key's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<CredentialsError>,
    },
    /// The key of an earlier try is no key of ours.
    #[error("{} holds no ECDSA P-256 key; move it away to begin anew", path.display())]
    PendingKind {
        /// The key's file.
        path: PathBuf,
    },
    /// The key cannot be kept.
    #[error("cannot keep the new key")]
    Keep {
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
    /// The answer is not PEM.
    #[error("the answer holds no certificate")]
    NoCertificate,
    /// The answer is not X.509.
    #[error("the answer does not hold an X.509 certificate")]
    Unreadable {
        /// Why.
        #[source]
        source: FactsError,
    },
    /// The answer names nobody.
    #[error("the certificate in the answer holds no valid identity")]
    Identity {
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The answer is for somebody else.
    #[error("the certificate in the answer is not for the key that was made here")]
    OtherKey,
}

impl KeyRequest {
    /// A fresh key, in memory only.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> Result<Self, KeyRequestError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| KeyRequestError::Make { source })?;
        Self::of(key)
    }

    /// The key in the file `path` (PEM, 0600), or a fresh one that is kept there before anybody hears of it. A token
    /// gives a certificate for one key only: after a crash the same key asks again.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn pending(path: &Path) -> Result<Self, KeyRequestError> {
        if path.symlink_metadata().is_err() {
            let fresh = Self::new()?;
            atomic::replace_durably(path, &fresh.key_pem, SECRET_MODE)
                .map_err(|source| KeyRequestError::Keep { source })?;
            return Ok(fresh);
        }
        let mut der = files::read_key_der(path).map_err(|source| KeyRequestError::Pending {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let key = KeyPair::from_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        der.zeroize();
        Self::of(key.map_err(|_| KeyRequestError::PendingKind {
            path: path.to_owned(),
        })?)
    }

    fn of(mut key: KeyPair) -> Result<Self, KeyRequestError> {
        let mut params = CertificateParams::default();
        // The CA decides whom the certificate names.
        params.distinguished_name = DistinguishedName::new();
        let csr = params
            .serialize_request(&key)
            .map_err(|source| KeyRequestError::Make { source });
        let made = csr.map(|csr| Self {
            csr_der: csr.der().to_vec(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            point: key.der_bytes().to_vec(),
        });
        key.zeroize();
        made
    }

    /// The request, PKCS #10 in DER.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }

    /// Joins the key with the certificate that was signed for it.
    ///
    /// # Errors
    /// When the answer holds no certificate, one without identity, or one for another key. Whether the CA that we
    /// trust signed it is said by [`crate::Credentials::load`].
    pub fn complete(&self, certificate_pem: &str) -> Result<Issued, KeyRequestError> {
        let leaf = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| KeyRequestError::NoCertificate)?;
        let facts = CertificateFacts::read(&leaf).map_err(|source| KeyRequestError::Unreadable { source })?;
        let identity = facts
            .identity
            .map_err(|source| KeyRequestError::Identity { source })?;
        let is_ours = X509Certificate::from_der(&leaf)
            .is_ok_and(|(_, parsed)| p256_point(parsed.public_key()) == Some(&self.point));
        if !is_ours {
            return Err(KeyRequestError::OtherKey);
        }
        Ok(Issued {
            identity,
            not_before: facts.not_before,
            not_after: facts.not_after,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: self.key_pem.clone(),
        })
    }
}

/// Never shows the key.
impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}
