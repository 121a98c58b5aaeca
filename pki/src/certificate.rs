//! What a certificate says about itself, for people and for records.
//!
//! It reads and never judges (verify.rs does). The invariant: everything here comes from the certificate's own
//! bytes, so it is as true as the CA that signed it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use hostler_common::units::UnixMillis;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, IdentityError, TrustDomain, plain};

const DAY: i64 = 86_400_000;

/// One certificate, read.
#[derive(Debug, Clone)]
pub struct CertificateFacts {
    /// The SPIFFE URI, or why there is none.
    pub identity: Result<Identity, IdentityError>,
    /// Of a CA: the trust domain that it vouches for.
    pub trust_domain: Option<TrustDomain>,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// Its subject, as `CN=ada`.
    pub subject: String,
    /// Who signed it, as `CN=Hostler CA 3f9a12c0 example.org`.
    pub issuer: String,
    /// Hexadecimal, with colons.
    pub serial: String,
    /// Its first moment.
    pub not_before: UnixMillis,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// As `ECDSA P-256`.
    pub key_type: String,
    /// As `serverAuth`, `clientAuth`; empty when it does not say.
    pub usages: Vec<String>,
    /// Every alternative name, as `DNS:a.example`, `IP:10.0.0.1`, `URI:spiffe://…`.
    pub names: Vec<String>,
    /// SHA-256 of the whole certificate, hexadecimal with colons, as openssl prints it.
    pub fingerprint: String,
}

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FactsError {
    /// Not X.509.
    #[error("it is not an X.509 certificate")]
    Parse {
        /// Where the parser stopped.
        #[source]
        source: X509Error,
    },
}

impl CertificateFacts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is not X.509.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, FactsError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|source| FactsError::Parse {
            source: plain(source),
        })?;
        let broken = |source| FactsError::Parse { source };
        let usages = certificate.extended_key_usage().map_err(broken)?;
        let names = certificate.subject_alternative_name().map_err(broken)?;
        Ok(Self {
            identity: Identity::of_parsed(&certificate),
            trust_domain: certificate
                .is_ca()
                .then(|| trust_domain_of(&certificate))
                .flatten(),
            is_ca: certificate.is_ca(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: colons(certificate.raw_serial()),
            not_before: UnixMillis(certificate.validity().not_before.timestamp().saturating_mul(1000)),
            not_after: UnixMillis(certificate.validity().not_after.timestamp().saturating_mul(1000)),
            key_type: key_type(&certificate),
            usages: usages
                .map(|usages| {
                    let known = [
                        (usages.value.server_auth, "serverAuth"),
                        (usages.value.client_auth, "clientAuth"),
                        (usages.value.any, "any"),
                    ];
                    let known = known
                        .iter()
                        .filter(|(set, _)| *set)
                        .map(|(_, name)| (*name).to_owned());
                    known
                        .chain(usages.value.other.iter().map(ToString::to_string))
                        .collect()
                })
                .unwrap_or_default(),
            names: names
                .map(|names| names.value.general_names.iter().map(show_name).collect())
                .unwrap_or_default(),
            fingerprint: Fingerprint::of(der).to_string(),
        })
    }

    /// Whole days from `now` to its end; negative once it has expired.
    pub fn days_left(&self, now: UnixMillis) -> i64 {
        self.not_after.0.saturating_sub(now.0).div_euclid(DAY)
    }
    /// Whether it is time for a new one: the last third of its life has begun, and fewer than 30 days are left, of a CA
    /// fewer than 400. A CA needs longer: what it signs may not outlive it, and its follower must reach every host.
    pub fn expires_soon(&self, now: UnixMillis) -> bool {
        let early = if self.is_ca { 400 * DAY } else { 30 * DAY };
        let life = self.not_after.0.saturating_sub(self.not_before.0);
        self.not_after.0.saturating_sub(now.0) < early.min(life / 3)
    }
}

/// The trust domain in a CA's certificate: the one URI without a path (X.509-SVID, 4.1).
pub(crate) fn trust_domain_of(certificate: &X509Certificate<'_>) -> Option<TrustDomain> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let domain = uris.next()?.strip_prefix("spiffe://")?.parse().ok()?;
    uris.next().is_none().then_some(domain)
}

fn key_type(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::EC(point)) => {
            let curve = key
                .algorithm
                .parameters
                .as_ref()
                .and_then(|any| any.as_oid().ok());
            match curve {
                Some(oid) if oid == OID_EC_P256 => "ECDSA P-256".to_owned(),
                Some(oid) if oid == OID_NIST_EC_P384 => "ECDSA P-384".to_owned(),
                _ => format!("EC {} bit", point.key_size()),
            }
        }
        Ok(PublicKey::RSA(rsa)) => format!("RSA {} bit", rsa.key_size()),
        _ => key.algorithm.algorithm.to_string(),
    }
}

fn show_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(dns) => format!("DNS:{dns}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(mail) => format!("email:{mail}"),
        GeneralName::IPAddress(bytes) => {
            if let Ok(octets) = <[u8; 4]>::try_from(*bytes) {
                format!("IP:{}", Ipv4Addr::from(octets))
            } else if let Ok(octets) = <[u8; 16]>::try_from(*bytes) {
                format!("IP:{}", Ipv6Addr::from(octets))
            } else {
                format!("IP:{}", colons(bytes))
            }
        }
        other => format!("{other:?}"),
    }
}

/// Bytes as `AB:0C`.
fn colons(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (at, byte) in bytes.iter().enumerate() {
        let separator = if at == 0 { "" } else { ":" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{byte:02X}");
    }
    text
}

/// A certificate as a section of PEM, with lines of 64 characters (RFC 7468, 2).
pub(crate) fn pem_of(certificate: &CertificateDer<'static>) -> String {
    let base64 = data_encoding::BASE64.encode(certificate);
    let mut text = String::with_capacity(base64.len() * 66 / 64 + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
