//! Where a coordinator listens, as a person writes it.
//!
//! It never resolves a name (channel.rs does). The invariant: an address that exists makes a valid URI, and never
//! means a connection without TLS.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use hostler_common::DEFAULT_PORT;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `host:port`. The host is a name, an IPv4 address, or an IPv6 address (written in brackets).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CoordinatorAddress {
    host: String,
    port: u16,
}

impl CoordinatorAddress {
    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Why a text is not a coordinator's address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Plaintext was asked for.
    #[error(
        "{text:?} asks for a connection without TLS, which coordinators do not offer; use https:// or just host:port"
    )]
    Plaintext {
        /// The text.
        text: String,
    },
    /// An IPv6 address that cannot be told from its port.
    #[error("{text:?} looks like an IPv6 address; put it in brackets, as [::1]:{DEFAULT_PORT}")]
    BareIpv6 {
        /// The text.
        text: String,
    },
    /// Not a port.
    #[error("the port in {text:?} is not a number from 1 to 65535")]
    Port {
        /// The text.
        text: String,
    },
    /// Anything else.
    #[error("{text:?} is not a coordinator's address; write it as host, host:port or https://host:port")]
    Form {
        /// The text.
        text: String,
    },
}

impl FromStr for CoordinatorAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let owned = || text.chars().take(200).collect::<String>();
        let form = || AddressError::Form { text: owned() };
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                rest.strip_suffix('/').unwrap_or(rest)
            }
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {
                return Err(AddressError::Plaintext { text: owned() });
            }
            Some(_) => return Err(form()),
            None => text,
        };
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (inside, after) = bracketed.split_once(']').ok_or_else(form)?;
            let address: Ipv6Addr = inside.parse().map_err(|_| form())?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(form()),
            };
            (address.to_string(), port)
        } else {
            match rest.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(AddressError::BareIpv6 { text: owned() });
                }
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (rest.to_owned(), None),
            }
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(is_name) {
            return Err(form());
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| AddressError::Port { text: owned() })?,
            Some(_) => return Err(AddressError::Port { text: owned() }),
        };
        Ok(Self { host, port })
    }
}

impl TryFrom<String> for CoordinatorAddress {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<CoordinatorAddress> for String {
    fn from(address: CoordinatorAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for CoordinatorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_in_every_form_that_people_write() {
        for (text, shown) in [
            ("node1", "node1:1312"),
            ("node1:9000", "node1:9000"),
            ("127.0.0.1", "127.0.0.1:1312"),
            ("https://c.example.org", "c.example.org:1312"),
            ("HTTPS://c.example.org:443/", "c.example.org:443"),
            ("[::1]", "[::1]:1312"),
            ("[2001:db8::1]:9000", "[2001:db8::1]:9000"),
            ("https://[::1]:9", "[::1]:9"),
        ] {
            let address: CoordinatorAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address), "{shown} does not read back");
        }
    }

    #[test]
    fn an_address_that_cannot_work_is_refused_with_a_sentence() {
        for (text, says) in [
            ("http://node1:1312", "without TLS"),
            ("::1", "brackets"),
            ("fe80::1:1312", "brackets"),
            ("node1:0", "1 to 65535"),
            ("node1:65536", "1 to 65535"),
            ("node1:", "1 to 65535"),
            ("node1:+1", "1 to 65535"),
            ("", "host:port"),
            (":1312", "host:port"),
            ("unix:/run/x", "1 to 65535"),
            ("grpc://node1", "host:port"),
            ("https://node1/path", "host:port"),
            ("a b", "host:port"),
            ("user@node1", "host:port"),
            ("[::1", "host:port"),
            ("[::1]x", "host:port"),
            ("[node1]:1", "host:port"),
        ] {
            let error = text.parse::<CoordinatorAddress>().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
