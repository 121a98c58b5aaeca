//! A certificate by its digest, for pinning and for telling two roots apart.
//!
//! It reads no certificate. The invariant: it is the SHA-256 of the whole DER, as `hostler-pki show` and
//! `openssl x509 -fingerprint -sha256` print it.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The bytes of a SHA-256.
pub(crate) const LEN: usize = 32;

/// The SHA-256 of a certificate's DER. Its text is hexadecimal with colons; it is read with and without them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; LEN]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; LEN];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl From<Fingerprint> for String {
    fn from(it: Fingerprint) -> Self {
        it.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = NotAFingerprint;

    fn try_from(text: String) -> Result<Self, NotAFingerprint> {
        text.parse()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a fingerprint is expected: 64 hexadecimal digits, with or without colons, as hostler-pki show prints it"
)]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let nibbles = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<Vec<u8>>>()
            .ok_or(NotAFingerprint)?;
        let bytes: Vec<u8> = nibbles
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, nibble| byte << 4 | nibble))
            .collect();
        if nibbles.len() != 2 * LEN {
            return Err(NotAFingerprint);
        }
        bytes.try_into().map(Self).map_err(|_| NotAFingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written_and_without_colons() {
        let one = Fingerprint::of(&CertificateDer::from(&b"abc"[..]));
        let text = one.to_string();
        assert!(
            text.starts_with("BA:78:16:BF:") && text.ends_with(":15:AD"),
            "{text}"
        );
        assert_eq!(text.parse(), Ok(one));
        assert_eq!(text.replace(':', "").to_lowercase().parse(), Ok(one));
        for bad in [
            "",
            "BA:78",
            &text[1..],
            &format!("{text}0"),
            &text.replace('B', "G"),
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NotAFingerprint), "{bad}");
        }
    }
}
