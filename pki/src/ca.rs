//! The private CA: one self-signed certificate that signs leaves directly.
//!
//! It never listens, and it is the only code that signs. The invariant: whatever it issues names exactly one
//! identity of its own trust domain, may be used one way only (to serve or to call), and ends before the CA does.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::units::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::DnsName;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::{Zeroize, Zeroizing};

use crate::certificate::trust_domain_of;
use crate::files::{self, CredentialsError};
use crate::identity::{Identity, Subject, TrustDomain};
use crate::issued::{self, CA_STEM, Existing, Issued, WriteError};
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

/// The longest common name (RFC 5280, ub-common-name). It is for people; identities may be longer.
const MAX_COMMON_NAME_LEN: usize = 64;

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trust_domain: TrustDomain,
    not_after: UnixMillis,
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
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self {
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            lifetime: DEFAULT_LEAF_LIFETIME,
        }
    }
}

/// Why the CA did not do it.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// Its files cannot be loaded.
    #[error("cannot open the CA in {}; hostler-pki init makes one", dir.display())]
    Load {
        /// The CA's directory.
        dir: PathBuf,
        /// Which file, and why.
        #[source]
        source: Box<CredentialsError>,
    },
    /// The certificate is not a CA of ours.
    #[error("{} is not a CA certificate of Hostler: {problem}", path.display())]
    NotOurs {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing it signs would be accepted.
    #[error("the CA {} expired at {not_after}; make a new one with hostler-pki init", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// Its last moment.
        not_after: UnixMillis,
    },
    /// A life of nothing, or of too much.
    #[error("a life of {} s is not possible; use 1 s to {} days", lifetime.as_secs(), MAX_LIFETIME.as_secs() / DAY.as_secs())]
    Lifetime {
        /// What was asked for.
        lifetime: Duration,
    },
    /// It would outlive its CA.
    #[error("it would be valid until {wanted}, and its CA only until {not_after}; ask for fewer days")]
    OutlivesCa {
        /// Its last moment.
        wanted: UnixMillis,
        /// The CA's last moment.
        not_after: UnixMillis,
    },
    /// Another fleet's identity.
    #[error("{identity} is not of this CA's trust domain {trust_domain}")]
    OtherTrustDomain {
        /// The identity.
        identity: Box<Identity>,
        /// The CA's.
        trust_domain: TrustDomain,
    },
    /// Host names for something that does not serve.
    #[error("{identity} does not serve, so it takes no DNS name or IP address")]
    NamesForCaller {
        /// The identity.
        identity: Box<Identity>,
    },
    /// Not a DNS name.
    #[error("{name:?} is not a DNS name")]
    DnsName {
        /// The text.
        name: String,
    },
    /// The cryptography failed.
    #[error("cannot make a certificate for {subject}")]
    Sign {
        /// For whom.
        subject: String,
        /// What rcgen says.
        #[source]
        source: rcgen::Error,
    },
    /// The kernel gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The files cannot be written.
    #[error("cannot keep the CA in {}", dir.display())]
    Write {
        /// The directory.
        dir: PathBuf,
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
}

impl Authority {
    /// Makes a new CA and writes `ca.crt` and `ca.key` into `dir`.
    ///
    /// # Errors
    /// When one of the files exists: a CA is never overwritten.
    pub fn init(dir: &Path, trust_domain: TrustDomain, lifetime: Duration) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Sign {
            subject: trust_domain.uri(),
            source,
        };
        let mut params = params(lifetime)?;
        // A CA that is made anew gets another name: with one name for two keys a peer would find a bad signature
        // where it should find an unknown CA, and a bundle of the old and the new CA would be searched in vain.
        params.distinguished_name = common_name(&format!("Hostler CA {} {trust_domain}", short_id()?));
        params.subject_alt_names = vec![SanType::URI(trust_domain.uri().try_into().map_err(failed)?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        issued::write_pair(dir, CA_STEM, &certificate.pem(), &key_pem, Existing::Keep).map_err(|source| {
            AuthorityError::Write {
                dir: dir.to_owned(),
                source,
            }
        })?;
        Ok(Self {
            not_after: millis(params.not_after),
            issuer: Issuer::new(params, key),
            trust_domain,
        })
    }

    /// Opens the CA in `dir`.
    ///
    /// # Errors
    /// When a file is missing, loose, broken, or no CA of ours, or the CA has expired.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let path = dir.join(format!("{CA_STEM}.crt"));
        let load = |source| AuthorityError::Load {
            dir: dir.to_owned(),
            source: Box::new(source),
        };
        let not_ours = |problem| AuthorityError::NotOurs {
            path: path.clone(),
            problem,
        };
        let certificate = files::read_certificates(&path).map_err(load)?.swap_remove(0);
        let mut key_der = files::read_key_der(&dir.join(format!("{CA_STEM}.key"))).map_err(load)?;
        let key = KeyPair::from_der_and_sign_algo(&key_der, &PKCS_ECDSA_P256_SHA256);
        key_der.zeroize();
        let key = key.map_err(|_| not_ours("its key is not ECDSA P-256"))?;

        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| not_ours("it is not X.509"))?;
        if !parsed.is_ca() {
            return Err(not_ours("it may not sign"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(not_ours("ca.key does not belong to it"));
        }
        let trust_domain = trust_domain_of(&parsed).ok_or_else(|| not_ours("it names no trust domain"))?;
        let not_after = UnixMillis(parsed.validity().not_after.timestamp().saturating_mul(1000));
        if not_after < UnixMillis::now() {
            return Err(AuthorityError::Expired { path, not_after });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|source| AuthorityError::Sign {
            subject: trust_domain.uri(),
            source,
        })?;
        Ok(Self {
            issuer,
            trust_domain,
            not_after,
        })
    }

    /// The trust domain that it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its last moment.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// Makes a key and a certificate for `identity`.
    ///
    /// # Errors
    /// When the identity is of another trust domain, the life too long, or a name unfit.
    pub fn issue(&self, identity: &Identity, options: &IssueOptions) -> Result<Issued, AuthorityError> {
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
        let failed = |source| AuthorityError::Sign {
            subject: identity.to_string(),
            source,
        };
        let mut params = params(options.lifetime)?;
        let not_after = millis(params.not_after);
        if not_after > self.not_after {
            return Err(AuthorityError::OutlivesCa {
                wanted: not_after,
                not_after: self.not_after,
            });
        }
        params.distinguished_name = common_name(identity.subject.name().as_str());
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(failed)?)];
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
        let mut key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        key.zeroize();
        Ok(Issued {
            identity: identity.clone(),
            not_after,
            certificate_pem: certificate.pem(),
            key_pem,
        })
    }
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
