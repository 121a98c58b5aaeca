//! Who a certificate speaks for: one SPIFFE URI, as `spiffe://example.org/agent/node-3`.
//!
//! It reads names and never verifies a signature (verify.rs does). The invariant: a certificate with no URI
//! name, with two, or with one that is not exactly of our form, has no identity at all.
//!
//! Source: the SPIFFE ID and X.509-SVID standards. Paths are compared byte by byte.

use std::fmt;
use std::str::FromStr;

use hostler_common::id::{HostName, InvalidId};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The scheme of every identity.
const SCHEME: &str = "spiffe://";

/// The longest trust domain, in bytes (SPIFFE ID, 2.1).
pub const MAX_TRUST_DOMAIN_LEN: usize = 255;

/// The longest identity, in bytes (SPIFFE ID, 2.3).
pub const MAX_URI_LEN: usize = 2048;

/// What a client may do. Each role may do all that the lower ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Starts operations.
    Operator,
    /// Settles what needs a person.
    Admin,
}

impl Role {
    /// Every role, the lowest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its name, lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdentityError::Role { role: start_of(text) })
    }
}

/// The realm of one CA, as `example.org`. It looks like a DNS name and need not be one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI of the domain itself, which its CA carries.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let holds_well = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN_LEN || !holds_well {
            return Err(IdentityError::TrustDomain { text: start_of(text) });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom, within a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A coordinator: the only one that serves.
    Coordinator {
        /// Its name.
        name: HostName,
    },
    /// The agent of a host. It speaks for that host only.
    Agent {
        /// The host.
        host: HostName,
    },
    /// A person or a program that calls.
    Client {
        /// What it may do.
        role: Role,
        /// Its name, for the records.
        name: HostName,
    },
}

impl Subject {
    /// The last part: the name that records show and file names use.
    pub fn name(&self) -> &HostName {
        match self {
            Self::Coordinator { name } | Self::Client { name, .. } => name,
            Self::Agent { host } => host,
        }
    }
}

/// The path of the URI, without its leading slash: `coordinator/c1`, `agent/node-3`, `client/admin/ada`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator { name } => write!(f, "coordinator/{name}"),
            Self::Agent { host } => write!(f, "agent/{host}"),
            Self::Client { role, name } => write!(f, "client/{role}/{name}"),
        }
    }
}

/// One identity. Its text is the SPIFFE URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    /// Whose CA vouches for it.
    pub trust_domain: TrustDomain,
    /// Whom it names.
    pub subject: Subject,
}

impl Identity {
    /// The identity in a certificate. Says nothing about who signed it.
    ///
    /// # Errors
    /// When the certificate is not DER, or does not hold exactly one URI name of our form.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|source| IdentityError::Unreadable {
                source: plain(source),
            })?;
        if !rest.is_empty() {
            return Err(IdentityError::TrailingBytes { count: rest.len() });
        }
        Self::of_parsed(&certificate)
    }

    pub(crate) fn of_parsed(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let names = certificate
            .subject_alternative_name()
            .map_err(|source| IdentityError::Unreadable { source })?;
        let mut uris = Vec::new();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                // A name that cannot be read may be a second URI.
                GeneralName::Invalid(..) => return Err(IdentityError::UnreadableName),
                _ => {}
            }
        }
        match uris.as_slice() {
            [] => Err(IdentityError::NoUri),
            [uri] => uri.parse(),
            [first, second, ..] => Err(IdentityError::ManyUris {
                count: uris.len(),
                first: start_of(first),
                second: start_of(second),
            }),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form { uri: start_of(uri) };
        if uri.len() > MAX_URI_LEN {
            return Err(form());
        }
        let (domain, path) = uri
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(form)?;
        let name = |text: &str| {
            text.parse::<HostName>().map_err(|source| IdentityError::Name {
                uri: start_of(uri),
                source,
            })
        };
        let parts: Vec<&str> = path.split('/').collect();
        let subject = match parts.as_slice() {
            ["coordinator", text] => Subject::Coordinator { name: name(text)? },
            ["agent", text] => Subject::Agent { host: name(text)? },
            ["client", role, text] => Subject::Client {
                role: role.parse()?,
                name: name(text)?,
            },
            _ => return Err(form()),
        };
        Ok(Self {
            trust_domain: domain.parse()?,
            subject,
        })
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.trust_domain, self.subject)
    }
}

/// Why something has no identity.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum IdentityError {
    /// The certificate is not X.509.
    #[error("the certificate cannot be read")]
    Unreadable {
        /// Where the parser stopped.
        #[source]
        source: X509Error,
    },
    /// Something follows the certificate.
    #[error("{count} bytes follow the certificate")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// One of the certificate's alternative names is broken.
    #[error("the certificate holds an alternative name that cannot be read")]
    UnreadableName,
    /// No URI name.
    #[error("the certificate names no spiffe:// URI")]
    NoUri,
    /// More than one.
    #[error("the certificate names {count} URIs ({first}, {second}); exactly one is allowed")]
    ManyUris {
        /// How many.
        count: usize,
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// Not one of our three forms.
    #[error(
        "{uri:?} is not an identity; it is spiffe://<trust-domain>/ and coordinator/<name>, agent/<host> or client/<role>/<name>"
    )]
    Form {
        /// The text.
        uri: String,
    },
    /// The name in it is ill-formed.
    #[error("the identity {uri:?} holds a bad name")]
    Name {
        /// The whole identity.
        uri: String,
        /// What is wrong with the name.
        #[source]
        source: InvalidId,
    },
    /// No such role.
    #[error("{role:?} is not a role; the roles are viewer, operator and admin")]
    Role {
        /// The text.
        role: String,
    },
    /// Not a trust domain.
    #[error(
        "{text:?} is not a trust domain; use 1 to {MAX_TRUST_DOMAIN_LEN} lower-case letters, digits, '.', '-' and '_', as example.org"
    )]
    TrustDomain {
        /// The text.
        text: String,
    },
    /// A connection without any certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
}

/// Peers choose these texts, so an error holds no more than the start of one.
fn start_of(text: &str) -> String {
    const SHOWN: usize = 200;
    text.chars().take(SHOWN).collect()
}

/// The parser's error without its wrapping.
pub(crate) fn plain(error: x509_parser::nom::Err<X509Error>) -> X509Error {
    match error {
        x509_parser::nom::Err::Error(source) | x509_parser::nom::Err::Failure(source) => source,
        x509_parser::nom::Err::Incomplete(_) => X509Error::InvalidCertificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        for text in [
            "spiffe://example.org/coordinator/c1",
            "spiffe://td-1_x/agent/node.example.org",
            "spiffe://a/client/viewer/ada",
            "spiffe://a/client/operator/A_b-3",
            "spiffe://a/client/admin/root",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn whatever_is_not_exactly_of_our_form_is_no_identity() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///agent/x",
            "spiffe://a",
            "spiffe://a/",
            "spiffe://a/agent",
            "spiffe://a/agent/",
            "spiffe://a/agent/x/",
            "spiffe://a/agent/x/y",
            "spiffe://a//agent/x",
            "spiffe://a/Agent/x",
            "spiffe://A/agent/x",
            "SPIFFE://a/agent/x",
            "https://a/agent/x",
            "spiffe://a:1/agent/x",
            "spiffe://u@a/agent/x",
            "spiffe://a/agent/x?y",
            "spiffe://a/agent/x#y",
            "spiffe://a/agent/%78",
            "spiffe://a/agent/..",
            "spiffe://a/client/x",
            "spiffe://a/client/root/x",
            "spiffe://a/client/Admin/x",
            " spiffe://a/agent/x",
            "spiffe://a/agent/x\0",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?} was taken");
        }
        let long = format!("spiffe://a/agent/{}", "x".repeat(1 << 20));
        let error = long.parse::<Identity>().unwrap_err().to_string();
        assert!(error.len() < 600, "{} bytes", error.len());
    }

    #[test]
    fn a_higher_role_compares_as_greater() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>(), Ok(role));
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_identity() {
        let error = Identity::of_certificate(&CertificateDer::from(vec![0x30, 0x01])).unwrap_err();
        assert!(matches!(error, IdentityError::Unreadable { .. }), "{error:?}");
    }
}
