//! The private CA: one self-signed certificate that signs leaves directly.
//!
//! It never listens, and it is the only code that signs. The invariant: whatever it issues names exactly one
//! identity of its own trust domain, may be used one way only (to serve or to call), and ends before the CA does.

mod dir;
mod error;
pub mod rotation;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::units::UnixMillis;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::DnsName;
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

pub use dir::Root;
pub use error::AuthorityError;

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, Subject, TrustDomain};
use crate::issued::{self, CA_STEM, Existing, Issued};
use crate::reload::FilesStamp;
use crate::request::RequestedKey;
use crate::verify::Usage;

const DAY: Duration = Duration::from_secs(86_400);

/// The life of a CA when none is named: 10 years.
pub const DEFAULT_CA_LIFETIME: Duration = Duration::from_secs(3650 * DAY.as_secs());

/// The life of a leaf when none is named: 90 days.
pub const DEFAULT_LEAF_LIFETIME: Duration = Duration::from_secs(90 * DAY.as_secs());

/// The longest life of anything: 100 years. Beyond it the arithmetic of dates would need more care than it is worth.
pub const MAX_LIFETIME: Duration = Duration::from_secs(36_500 * DAY.as_secs());

/// How far a certificate's life begins in the past, for hosts whose clocks are late.
const BACKDATED: Duration = Duration::from_secs(300);

/// How far ahead of this clock a life may begin: the rounding to whole seconds, and no more than that.
const MOST_AHEAD: Duration = Duration::from_secs(1);

/// The longest common name (RFC 5280, ub-common-name). It is for people; identities may be longer.
const MAX_COMMON_NAME_LEN: usize = 64;

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trust_domain: TrustDomain,
    not_after: UnixMillis,
    root: Fingerprint,
}

/// What to do when a certificate would outlive its CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeyondCa {
    /// Sign nothing, so that a person sees it.
    Refuse,
    /// Let it end with the CA: for renewals that go by themselves.
    Shorten,
}

/// What a leaf holds beside its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueOptions {
    /// DNS names, for tools that check them; coordinators only.
    pub dns_names: Vec<String>,
    /// IP addresses, likewise.
    pub ip_addresses: Vec<IpAddr>,
    /// How long it is valid.
    pub lifetime: Duration,
    /// When this identity was last revoked. The life then begins after that second, rather than some minutes ago:
    /// [`crate::revocation::covers`] does not reach it. It may begin up to a second from now.
    pub after: Option<UnixMillis>,
    /// What to do when it would outlive the CA.
    pub beyond_ca: BeyondCa,
}

/// A certificate for a key that is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Whom it names.
    pub identity: Identity,
    /// Its first moment. One that follows a revocation may begin up to a second from now.
    pub not_before: UnixMillis,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The root that signed it.
    pub root: Fingerprint,
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self {
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            lifetime: DEFAULT_LEAF_LIFETIME,
            after: None,
            beyond_ca: BeyondCa::Refuse,
        }
    }
}

impl Authority {
    /// Makes a new CA and writes `ca.crt` and `ca.key` into `dir`.
    ///
    /// # Errors
    /// When one of the files exists: a CA is never overwritten.
    pub fn init(dir: &Path, trust_domain: TrustDomain, lifetime: Duration) -> Result<Self, AuthorityError> {
        dir::not_half(dir)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign_failed(trust_domain.uri()))?;
        let (params, certificate) = new_root(&key, &trust_domain, lifetime)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        issued::write_pair(dir, CA_STEM, &certificate.pem(), &key_pem, Existing::Keep).map_err(|source| {
            AuthorityError::Write {
                dir: dir.to_owned(),
                source,
            }
        })?;
        Ok(Self {
            not_after: millis(params.not_after),
            root: Fingerprint::of(certificate.der()),
            issuer: Issuer::new(params, key),
            trust_domain,
        })
    }

    /// Opens the CA in `dir`, also in the middle of a rotation: the first root in `ca.crt` signs.
    ///
    /// # Errors
    /// When a file is missing, loose, broken, or no CA of ours, or the CA has expired.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (root, key) = dir::signing(dir)?;
        if root.not_after < UnixMillis::now() {
            return Err(AuthorityError::Expired {
                path: dir::certificate_path(dir),
                not_after: root.not_after,
            });
        }
        let issuer =
            Issuer::from_ca_cert_der(&root.certificate, key).map_err(|source| AuthorityError::Sign {
                subject: root.trust_domain.uri(),
                source,
            })?;
        Ok(Self {
            issuer,
            root: root.fingerprint,
            trust_domain: root.trust_domain,
            not_after: root.not_after,
        })
    }

    /// The stamp of what [`Authority::open`] reads in `dir`: who keeps a CA open opens it again when this changes.
    pub fn stamp(dir: &Path) -> FilesStamp {
        let paths = [
            dir::certificate_path(dir),
            dir::key_path(dir),
            dir::next_key_path(dir),
        ];
        FilesStamp::of(paths.iter().map(PathBuf::as_path))
    }

    /// The trust domain that it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its last moment.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// The digest of the root that signs.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// Makes a key and a certificate for `identity`.
    ///
    /// # Errors
    /// When the identity is of another trust domain, the life too long, or a name unfit.
    pub fn issue(&self, identity: &Identity, options: &IssueOptions) -> Result<Issued, AuthorityError> {
        let mut key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign_failed(identity.to_string()))?;
        let signed = self.sign(&key, identity, options);
        let key_pem = Zeroizing::new(key.serialize_pem());
        key.zeroize();
        let signed = signed?;
        Ok(Issued {
            identity: signed.identity,
            not_before: signed.not_before,
            not_after: signed.not_after,
            certificate_pem: signed.certificate_pem,
            key_pem,
        })
    }

    /// Signs a certificate for `identity` and the key of a request (PKCS #10, DER). The request's names count for
    /// nothing: whom the certificate names is the caller's word.
    ///
    /// # Errors
    /// As [`Authority::issue`]; and when the request is malformed, its key is not ECDSA P-256, or its signature does
    /// not verify.
    pub fn sign_request(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        options: &IssueOptions,
    ) -> Result<Signed, AuthorityError> {
        let key = RequestedKey::read(csr_der).map_err(|source| AuthorityError::Request {
            subject: identity.to_string(),
            source,
        })?;
        self.sign(&key, identity, options)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        options: &IssueOptions,
    ) -> Result<Signed, AuthorityError> {
        if identity.trust_domain != self.trust_domain {
            return Err(AuthorityError::OtherTrustDomain {
                identity: Box::new(identity.clone()),
                trust_domain: self.trust_domain.clone(),
            });
        }
        let names_anything = !options.dns_names.is_empty() || !options.ip_addresses.is_empty();
        if names_anything && !matches!(identity.subject, Subject::Coordinator { .. }) {
            return Err(AuthorityError::NamesForCaller {
                identity: Box::new(identity.clone()),
            });
        }
        let failed = sign_failed(identity.to_string());
        let mut params = params(options.lifetime)?;
        if let Some(after) = options.after {
            begin_after(&mut params, after).ok_or_else(|| AuthorityError::RevokedInTheFuture {
                identity: Box::new(identity.clone()),
                after,
            })?;
        }
        if millis(params.not_after) > self.not_after {
            match options.beyond_ca {
                BeyondCa::Shorten => params.not_after = moment(self.not_after),
                BeyondCa::Refuse => {
                    return Err(AuthorityError::OutlivesCa {
                        wanted: millis(params.not_after),
                        not_after: self.not_after,
                    });
                }
            }
        }
        params.distinguished_name = common_name(identity.subject.name().as_str());
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(&failed)?)];
        for name in &options.dns_names {
            let bad = || AuthorityError::DnsName { name: name.clone() };
            DnsName::try_from(name.as_str()).map_err(|_| bad())?;
            params
                .subject_alt_names
                .push(SanType::DnsName(name.clone().try_into().map_err(|_| bad())?));
        }
        params
            .subject_alt_names
            .extend(options.ip_addresses.iter().copied().map(SanType::IpAddress));
        // Explicit, so that the certificate says it is no CA and carries its key's identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match Usage::of(&identity.subject) {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let certificate = params.signed_by(key, &self.issuer).map_err(&failed)?;
        Ok(Signed {
            identity: identity.clone(),
            not_before: millis(params.not_before),
            not_after: millis(params.not_after),
            certificate_pem: certificate.pem(),
            root: self.root,
        })
    }
}

/// A new root for `key`.
fn new_root(
    key: &KeyPair,
    trust_domain: &TrustDomain,
    lifetime: Duration,
) -> Result<(CertificateParams, Certificate), AuthorityError> {
    let failed = sign_failed(trust_domain.uri());
    let mut params = params(lifetime)?;
    // A CA that is made anew gets another name: with one name for two keys a peer would find a bad signature
    // where it should find an unknown CA, and a bundle of the old and the new CA would be searched in vain.
    params.distinguished_name = common_name(&format!("Hostler CA {} {trust_domain}", short_id()?));
    params.subject_alt_names = vec![SanType::URI(trust_domain.uri().try_into().map_err(&failed)?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(key).map_err(&failed)?;
    Ok((params, certificate))
}

fn sign_failed(subject: String) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError::Sign {
        subject: subject.clone(),
        source,
    }
}

/// Lets a life begin in the first whole second after `after`, if it would begin before, and end as much later as it would
/// end before that. `None` when that second is further away than the rounding explains.
fn begin_after(params: &mut CertificateParams, after: UnixMillis) -> Option<()> {
    let first = moment(UnixMillis((after.0.div_euclid(1000) + 1).saturating_mul(1000)));
    let now = OffsetDateTime::now_utc();
    if first > now + MOST_AHEAD {
        return None;
    }
    if first > params.not_before {
        params.not_before = first;
        // A life of seconds would otherwise be over before it begins.
        params.not_after = params.not_after.max(params.not_after + (first - now));
    }
    Some(())
}

/// What every certificate has: a life, and a serial number that nobody can guess.
fn params(lifetime: Duration) -> Result<CertificateParams, AuthorityError> {
    if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
        return Err(AuthorityError::Lifetime { lifetime });
    }
    let now = OffsetDateTime::now_utc();
    // X.509 counts whole seconds; without this not_after and what we say about it would differ.
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = now + lifetime;
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 126 random bits in 16 bytes: never negative, never shorter (RFC 5280, 4.1.2.2).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Random)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// 32 random bits, hexadecimal.
fn short_id() -> Result<String, AuthorityError> {
    let mut bytes = [0u8; 4];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Random)?;
    Ok(format!("{:08x}", u32::from_be_bytes(bytes)))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    let short: String = name.chars().take(MAX_COMMON_NAME_LEN).collect();
    distinguished.push(DnType::CommonName, short);
    distinguished
}

fn millis(at: OffsetDateTime) -> UnixMillis {
    UnixMillis(at.unix_timestamp().saturating_mul(1000))
}

fn moment(at: UnixMillis) -> OffsetDateTime {
    // Beyond year 9999, where no certificate goes.
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
