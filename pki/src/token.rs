//! The token that a new host is given: one word that says who the host will be, which CA it may trust, and the secret
//! that proves it.
//!
//! It keeps no list of tokens; the coordinator does, with the secret's hash only. The invariant: no error and no debug
//! output holds the secret or what may be a part of it, and a word with a typo is told from one that is refused before
//! anything is sent.
//!
//! The word is `hostler1-` and then, in lower-case base32 (RFC 4648, no padding): 8 bytes of id, 32 of secret, 32 of
//! the root's SHA-256, the host's name, and the first 4 bytes of the SHA-256 of all that with the prefix before it. It holds
//! nothing that a shell, a URL or a double click reads specially; upper case is read too.

use std::fmt;

use data_encoding::BASE32_NOPAD_NOCASE;
use hostler_common::id::{HostName, InvalidId, MAX_ID_LEN};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::fingerprint::{self, Fingerprint};

/// What every token of this version begins with.
pub const TOKEN_PREFIX: &str = "hostler1-";

const ID_LEN: usize = 8;
const SECRET_LEN: usize = 32;
const CHECK_LEN: usize = 4;
const HOST_AT: usize = ID_LEN + SECRET_LEN + fingerprint::LEN;

/// The longest token, in characters: beyond it nothing is decoded.
pub const MAX_TOKEN_LEN: usize = TOKEN_PREFIX.len() + ((HOST_AT + MAX_ID_LEN + CHECK_LEN) * 8).div_ceil(5);

/// With a host's name of one character.
const MIN_TOKEN_LEN: usize = TOKEN_PREFIX.len() + ((HOST_AT + 1 + CHECK_LEN) * 8).div_ceil(5);

/// Names a token in lists and logs. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_LEN]);

/// 16 hexadecimal digits.
impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_hex = text.len() == 2 * ID_LEN && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_hex
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(|id| Self(id.to_be_bytes()))
            .ok_or(TokenError::Id)
    }
}

/// What is stored of a secret. Two are compared in a time that does not depend on them.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// From its stored bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// A one-time token for one host.
#[derive(Clone)]
pub struct EnrolToken {
    id: TokenId,
    secret: Zeroizing<[u8; SECRET_LEN]>,
    host: HostName,
    ca: Fingerprint,
}

/// Why a word is not a token. Never holds a part of the word but the name of its host, once the checksum is right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Something else.
    #[error(
        "this is not an enrolment token: one begins with {TOKEN_PREFIX}; make one with hostler tokens create"
    )]
    Prefix,
    /// Of a version that we do not know.
    #[error(
        "this token was made by another version of hostler; make one with the version that this host has"
    )]
    Version,
    /// A character that no token holds.
    #[error("character {position} of the token is none that a token holds; copy it again, in one piece")]
    Character {
        /// Counted from 1.
        position: usize,
    },
    /// Too short or too long.
    #[error("the token has {len} characters, and none has so few or so many; copy it again, in one piece")]
    Length {
        /// How many it has.
        len: usize,
    },
    /// A typo, or somebody's hand.
    #[error("the token was altered: its checksum does not fit; copy it again, in one piece")]
    Checksum,
    /// Made by a program that is not ours.
    #[error("the token names no valid host")]
    Host {
        /// Why.
        #[source]
        source: InvalidId,
    },
    /// Not a token's id.
    #[error("a token's id is expected: 16 hexadecimal digits, as hostler tokens list shows it")]
    Id,
    /// The kernel gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl EnrolToken {
    /// A new token for `host`, which pins the root `ca`: the one behind the coordinator's own certificate
    /// ([`crate::Credentials::root`]).
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(host: HostName, ca: Fingerprint) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let mut id = [0; ID_LEN];
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        random
            .fill(&mut id)
            .and_then(|()| random.fill(&mut *secret))
            .map_err(|_| TokenError::Random)?;
        Ok(Self {
            id: TokenId(id),
            secret,
            host,
            ca,
        })
    }

    /// Reads a token. Space around it does not matter.
    ///
    /// # Errors
    /// What is wrong with it, without a part of it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let coded = match text.get(..TOKEN_PREFIX.len()) {
            Some(start) if start.eq_ignore_ascii_case(TOKEN_PREFIX) => &text[TOKEN_PREFIX.len()..],
            _ if is_of_another_version(text) => return Err(TokenError::Version),
            _ => return Err(TokenError::Prefix),
        };
        let odd = coded
            .bytes()
            .position(|b| !b.is_ascii_alphabetic() && !(b'2'..=b'7').contains(&b));
        if let Some(at) = odd {
            return Err(TokenError::Character {
                position: TOKEN_PREFIX.len() + at + 1,
            });
        }
        let length = || TokenError::Length { len: text.len() };
        if text.len() > MAX_TOKEN_LEN || text.len() < MIN_TOKEN_LEN {
            return Err(length());
        }
        let bytes = BASE32_NOPAD_NOCASE
            .decode(coded.as_bytes())
            .map(Zeroizing::new)
            // Not a whole number of bytes, or bits that must be zero: something is missing or was changed.
            .map_err(|_| TokenError::Checksum)?;
        let (payload, check) = bytes.split_at(bytes.len() - CHECK_LEN);
        if checksum(payload) != check {
            return Err(TokenError::Checksum);
        }
        let (id, rest) = payload.split_at(ID_LEN);
        let (secret, rest) = rest.split_at(SECRET_LEN);
        let (ca, host) = rest.split_at(fingerprint::LEN);
        let host = String::from_utf8_lossy(host)
            .parse()
            .map_err(|source| TokenError::Host { source })?;
        let mut token = Self {
            id: TokenId([0; ID_LEN]),
            secret: Zeroizing::new([0; SECRET_LEN]),
            host,
            ca: Fingerprint::from_bytes(ca.try_into().map_err(|_| length())?),
        };
        token.id.0.copy_from_slice(id);
        token.secret.copy_from_slice(secret);
        Ok(token)
    }

    /// The whole token as one word. It is a secret: whoever has it can be the host.
    pub fn to_word(&self) -> Zeroizing<String> {
        let mut payload = Zeroizing::new(Vec::with_capacity(HOST_AT + MAX_ID_LEN + CHECK_LEN));
        payload.extend_from_slice(&self.id.0);
        payload.extend_from_slice(&*self.secret);
        payload.extend_from_slice(self.ca.as_bytes());
        payload.extend_from_slice(self.host.as_str().as_bytes());
        let check = checksum(&payload);
        payload.extend_from_slice(&check);
        let mut word = Zeroizing::new(String::with_capacity(MAX_TOKEN_LEN));
        word.push_str(TOKEN_PREFIX);
        BASE32_NOPAD_NOCASE.encode_append(&payload, &mut word);
        word.make_ascii_lowercase();
        word
    }

    /// Its name in lists.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The host it is for. What counts is the host that was stored with its id: who has one token can write another.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// The root that the coordinator's certificate must lead to.
    pub fn ca(&self) -> Fingerprint {
        self.ca
    }

    /// What is stored of the secret. 256 random bits need no slow hash.
    pub fn secret_hash(&self) -> SecretHash {
        let mut context = Context::new(&SHA256);
        context.update(b"hostler enrolment secret 1\0");
        context.update(&*self.secret);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        SecretHash(bytes)
    }
}

/// Never shows the secret.
impl fmt::Debug for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolToken")
            .field("id", &self.id)
            .field("host", &self.host)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

/// Against typos, not against people: who can write a checksum does not know the secret.
fn checksum(payload: &[u8]) -> [u8; CHECK_LEN] {
    let mut context = Context::new(&SHA256);
    context.update(TOKEN_PREFIX.as_bytes());
    context.update(payload);
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&context.finish().as_ref()[..CHECK_LEN]);
    check
}

fn is_of_another_version(text: &str) -> bool {
    text.split_once('-')
        .and_then(|(name, _)| {
            name.to_ascii_lowercase()
                .strip_prefix("hostler")
                .map(str::to_owned)
        })
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
