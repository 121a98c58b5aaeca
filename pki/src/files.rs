//! The files that every part of Hostler is given: the CA, its own certificate, its own key. Certificate and key may be
//! one file, which can be replaced in one rename.
//!
//! It reads them and never writes any (issued.rs does). The invariant: credentials that load are usable; whatever
//! a peer would refuse is refused here first, with the file's name and what to do.

mod error;
mod roots;

use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_common::units::UnixMillis;
use nix::unistd::Uid;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

pub use error::CredentialsError;
pub use roots::read_roots;
use roots::{Roots, Span};

use crate::TlsConfigError;
use crate::certificate::{CertificateFacts, pem_of};
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::verify::{self, Usage, VerifyError};

/// The largest file that is read, in bytes. A chain of ten certificates has about 10 KiB.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Where the three files are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The CA certificate or certificates that peers must be signed by, PEM.
    pub ca: PathBuf,
    /// Our own certificate first, then any intermediate, PEM.
    pub certificate: PathBuf,
    /// The key of our certificate, PEM, readable by its owner only. May be the same file as `certificate`.
    pub key: PathBuf,
}

/// Loaded and checked credentials.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) ca: Arc<[CertificateDer<'static>]>,
    /// While they are what their file gives.
    ca_stand: Span,
    /// Which of `ca` our certificate leads to.
    signer: usize,
    pub(crate) certified: Arc<CertifiedKey>,
    identity: Identity,
    not_before: UnixMillis,
    not_after: UnixMillis,
}

impl Credentials {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Names the file, and says what is wrong with it.
    pub fn load(files: &TlsFiles) -> Result<Self, CredentialsError> {
        let Roots {
            certificates: ca,
            stand: ca_stand,
        } = roots::read(&files.ca)?;
        let roots = roots::store_of(&ca, &files.ca)?;
        // One file for both is read once, or it could be replaced in between.
        let (chain, key) = if files.certificate == files.key {
            let (opened, bytes) = read(&files.key)?;
            let key = key_in(&files.key, &opened, &bytes).and_then(|key| signing_key(&files.key, key))?;
            (certificates_in(&files.certificate, &bytes)?, key)
        } else {
            let chain = read_certificates(&files.certificate)?;
            (chain, signing_key(&files.key, read_key_der(&files.key)?)?)
        };
        let leaf = &chain[0];
        let facts = CertificateFacts::read(leaf).map_err(|source| CredentialsError::Unreadable {
            path: files.certificate.clone(),
            source,
        })?;
        let not_accepted = |source| CredentialsError::NotAccepted {
            path: files.certificate.clone(),
            ca: files.ca.clone(),
            source: Box::new(source),
        };
        let now = UnixTime::now();
        let identity = verify::check_own(&roots, leaf, &chain[1..], now).map_err(not_accepted)?;
        let signer = verify::signer(Usage::of(&identity.subject), &ca, leaf, &chain[1..], now)
            .ok_or_else(|| not_accepted(VerifyError::UnknownIssuer))?;
        let (not_before, not_after) = (facts.not_before, facts.not_after);
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|source| CredentialsError::Mismatch {
                key: files.key.clone(),
                certificate: files.certificate.clone(),
                source,
            })?;
        Ok(Self {
            roots,
            ca: ca.into(),
            ca_stand,
            signer,
            certified: Arc::new(certified),
            identity,
            not_before,
            not_after,
        })
    }

    /// Whom we speak for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The root that our certificate leads to: what a token pins.
    pub fn root(&self) -> Fingerprint {
        Fingerprint::of(self.root_certificate())
    }

    pub(crate) fn root_certificate(&self) -> &CertificateDer<'static> {
        &self.ca[self.signer]
    }

    /// Whether the time makes other roots of the same file: one has ended since and vouches for nobody any more, or one had
    /// ended by a clock that was ahead.
    pub(crate) fn has_other_roots_now(&self) -> bool {
        !self.ca_stand.holds(UnixMillis::now())
    }

    /// Every root that is trusted, PEM: what a coordinator tells its hosts.
    pub fn ca_pem(&self) -> String {
        self.ca.iter().map(pem_of).collect()
    }

    /// Our own certificate and any intermediate, PEM: what peers are shown.
    pub fn chain_pem(&self) -> String {
        self.certified.cert.iter().map(pem_of).collect()
    }

    /// Refuses what every peer would refuse.
    pub(crate) fn fit(&self, wanted: Usage) -> Result<(), TlsConfigError> {
        if Usage::of(&self.identity.subject) == wanted {
            return Ok(());
        }
        Err(TlsConfigError::WrongSubject {
            identity: Box::new(self.identity.clone()),
            wanted,
        })
    }

    /// The first moment of our certificate.
    pub fn not_before(&self) -> UnixMillis {
        self.not_before
    }

    /// The last moment of our certificate.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }
}

/// Shows whom they are for; never the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Reads the certificates in `path`: at least one.
///
/// # Errors
/// When the file cannot be read, is not PEM, or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let (_, bytes) = read(path)?;
    certificates_in(path, &bytes)
}

fn certificates_in(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(path, &error))?;
    if certificates.is_empty() {
        return Err(CredentialsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// A key to sign with. What this program copied of it is wiped; what the cryptography keeps is not ours.
fn signing_key(
    path: &Path,
    mut key: PrivateKeyDer<'static>,
) -> Result<Arc<dyn rustls::sign::SigningKey>, CredentialsError> {
    let signing = rustls::crypto::ring::sign::any_supported_type(&key);
    key.zeroize();
    signing.map_err(|source| CredentialsError::BadKey {
        path: path.to_owned(),
        source,
    })
}

/// Reads the one key in `path`, after a look at who else may.
pub(crate) fn read_key_der(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let (opened, bytes) = read(path)?;
    key_in(path, &opened, &bytes)
}

fn key_in(path: &Path, opened: &Metadata, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let mode = opened.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CredentialsError::LooseKey {
            path: path.to_owned(),
            mode,
        });
    }
    // Only root can read a key of mode 0600 that is another's: anybody else has failed by now.
    let owner = opened.uid();
    if Uid::effective().is_root() && !Uid::from_raw(owner).is_root() {
        return Err(CredentialsError::ForeignKey {
            path: path.to_owned(),
            owner,
        });
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(path, &error))?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (last, others) => {
            let count = others + usize::from(last.is_some());
            last.into_iter().chain(keys).for_each(|mut key| key.zeroize());
            Err(CredentialsError::KeyCount {
                path: path.to_owned(),
                count,
            })
        }
    }
}

/// A small text, as it is.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, CredentialsError> {
    let (_, bytes) = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| CredentialsError::NotPem {
        path: path.to_owned(),
        problem: "it is not text",
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Whose it is with its permission bits, and the content. Both are of the opened file, so nobody can swap it in
/// between.
fn read(path: &Path) -> Result<(Metadata, Zeroizing<Vec<u8>>), CredentialsError> {
    let failed = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before the open: the open of a pipe waits for a writer.
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() || kind.len() > MAX_FILE_LEN {
        return Err(CredentialsError::NotAFile {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(failed)?;
    let opened = file.metadata().map_err(failed)?;
    // With room for all of it, the content is never moved and leaves no copy behind.
    let room = usize::try_from(opened.len().min(MAX_FILE_LEN)).unwrap_or(0) + 64;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_FILE_LEN).read_to_end(&mut bytes).map_err(failed)?;
    Ok((opened, bytes))
}

fn not_pem(path: &Path, error: &pem::Error) -> CredentialsError {
    CredentialsError::NotPem {
        path: path.to_owned(),
        problem: pem_problem(error),
    }
}

/// What is wrong with a PEM text, and nothing of the text: it may be a key, on one line, and this is shown to everybody.
pub(crate) fn pem_problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a section that begins has no end; was it copied whole, with its line ends?"
        }
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is broken",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    }
}
