//! The tokens with which hosts enrol, stored under `/tokens/<id>`: who may use which, until when, and what became of it.
//!
//! It signs nothing. The invariants: of a secret only its hash is stored; a token serves one key, whoever asks at the same
//! time; and what is refused writes nothing.

use data_encoding::HEXLOWER;
use std::time::Duration;

use hostler_common::id::HostName;
use hostler_common::units::UnixMillis;
use hostler_pki::{EnrolToken, Fingerprint, SecretHash, Subject, TokenError, TokenId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use super::refusal::Refusal;
use super::revocation::RevocationList;
use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Entry, Order, Range, Revision, Store, Transaction, Write};

/// Where tokens lie in the store.
pub const PREFIX: &str = "/tokens/";

/// Tokens that may be used at a time. A site enrols its hosts in portions of this.
pub const OPEN_AT_MOST: usize = 10_000;

/// Tokens that are over and kept for people, the newest.
const OVER_AT_MOST: usize = 1000;

/// How long they are kept.
const OVER_AGE: Duration = Duration::from_secs(90 * 86_400);

/// How far the clock may go back behind the making of a token before it is taken for wrong.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// What is stored of a token. Later versions read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its id, 16 hexadecimal digits.
    pub id: String,
    /// The host that it is for.
    pub host: HostName,
    /// The hash of its secret, hexadecimal.
    pub secret_hash: String,
    /// The URI of who made it.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// Until when it may be used.
    pub expires_at: UnixMillis,
    /// The last revocation of its host that was known when it was made. It may lie in the future: it covers what a clock that
    /// was ahead has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<UnixMillis>,
    /// What ended it.
    #[serde(default)]
    pub ended: Option<Ended>,
}

/// What ended a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Ended {
    /// A host enrolled with it.
    Used {
        /// When.
        at: UnixMillis,
        /// From which address.
        from: String,
        /// The digest of the host's public key, hexadecimal.
        key: String,
    },
    /// Somebody revoked it.
    Revoked {
        /// When.
        at: UnixMillis,
        /// The URI of who did it.
        by: String,
    },
}

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be used.
    Open,
    /// A host has enrolled with it.
    Used,
    /// Its time is over.
    Expired,
    /// Somebody has revoked it.
    Revoked,
}

/// Why nothing was done about a token.
#[derive(Debug, Error)]
pub enum TokensError {
    /// Too many are open.
    #[error(
        "{OPEN_AT_MOST} tokens are open; use them, or revoke some with hostler tokens revoke, or wait until they expire"
    )]
    TooMany,
    /// No such.
    #[error("there is no token {id}; hostler tokens list shows those that are kept")]
    NoSuchToken {
        /// Its id.
        id: TokenId,
    },
    /// It is of no use already.
    #[error("token {id} was used at {at}; revoke the host's certificate with hostler agents revoke {host}")]
    AlreadyUsed {
        /// Its id.
        id: TokenId,
        /// When.
        at: UnixMillis,
        /// The host.
        host: HostName,
    },
    /// No random numbers.
    #[error(transparent)]
    Make(TokenError),
    /// The store failed.
    #[error(transparent)]
    Record(RecordError),
}

impl<E: Into<RecordError>> From<E> for TokensError {
    fn from(error: E) -> Self {
        Self::Record(error.into())
    }
}

impl TokenRecord {
    fn key_of(id: TokenId) -> String {
        format!("{PREFIX}{id}")
    }

    /// Where it stands.
    pub fn standing(&self, now: UnixMillis) -> Standing {
        match &self.ended {
            Some(Ended::Used { .. }) => Standing::Used,
            Some(Ended::Revoked { .. }) => Standing::Revoked,
            None if self.expires_at <= now => Standing::Expired,
            None => Standing::Open,
        }
    }

    /// When it stopped being of use.
    fn over_at(&self) -> UnixMillis {
        match &self.ended {
            Some(Ended::Used { at, .. } | Ended::Revoked { at, .. }) => *at,
            None => self.expires_at,
        }
    }

    fn hash(&self) -> Option<SecretHash> {
        let bytes = HEXLOWER.decode(self.secret_hash.as_bytes()).ok()?;
        Some(SecretHash::from_bytes(bytes.try_into().ok()?))
    }

    /// Whether `token` is this one, and may be used now by whoever has the key of digest `key`.
    ///
    /// # Errors
    /// Why not. Where it stands is told only to who has the secret.
    pub fn admit(&self, token: &EnrolToken, key: &str, now: UnixMillis) -> Result<(), Refusal> {
        let (id, host) = (token.id(), self.host.clone());
        if self.hash() != Some(token.secret_hash()) {
            return Err(Refusal::Altered {
                id,
                what: "its secret",
            });
        }
        if *token.host() != self.host {
            return Err(Refusal::Altered { id, what: "its host" });
        }
        match &self.ended {
            Some(Ended::Revoked { at, by }) => {
                let (at, by) = (*at, by.clone());
                return Err(Refusal::Revoked { id, at, by, host });
            }
            Some(Ended::Used { at, from, key: used }) if used != key => {
                let (at, from) = (*at, from.clone());
                return Err(Refusal::Used { id, at, from, host });
            }
            // The same key again: the answer was lost.
            Some(Ended::Used { .. }) | None => {}
        }
        if now.plus(CLOCK_SLACK) < self.created_at {
            let created_at = self.created_at;
            return Err(Refusal::ClockWentBack { id, created_at, now });
        }
        if self.expires_at <= now {
            let at = self.expires_at;
            return Err(Refusal::Expired { id, at, host });
        }
        Ok(())
    }

    /// Whether it was made after its host was `revoked` the last time. One from before lets nobody back in, also not with
    /// the key that has used it up.
    ///
    /// # Errors
    /// When it was made before.
    pub fn outlives(&self, id: TokenId, revoked: Option<UnixMillis>) -> Result<(), Refusal> {
        let is_later =
            |at: &UnixMillis| self.created_at <= *at && self.follows.is_none_or(|known| known < *at);
        match revoked.filter(is_later) {
            Some(at) => Err(Refusal::HostRevoked {
                id,
                at,
                host: self.host.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// A stored token, as it was read.
#[derive(Debug, Clone)]
pub struct Held {
    /// It.
    pub record: TokenRecord,
    modified: Revision,
}

/// Every token. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokens {
    store: Store,
    revocations: RevocationList,
}

impl Tokens {
    /// In `store`.
    pub fn new(store: Store, revocations: RevocationList) -> Self {
        Self { store, revocations }
    }

    /// Makes a token for `host` that pins `ca`, and forgets those that are over for long.
    ///
    /// # Errors
    /// When too many are open, or it cannot be stored.
    pub async fn create(
        &self,
        host: HostName,
        ca: Fingerprint,
        by: &str,
        life: Duration,
    ) -> Result<(EnrolToken, TokenRecord), TokensError> {
        let now = UnixMillis::now();
        let entries = self.entries().await?;
        let forgotten = over(&entries, now)?;
        if entries.len() - forgotten.kept_over - forgotten.keys.len() >= OPEN_AT_MOST {
            return Err(TokensError::TooMany);
        }
        let token = EnrolToken::new(host.clone(), ca).map_err(TokensError::Make)?;
        let subject = Subject::Agent { host: host.clone() };
        let record = TokenRecord {
            id: token.id().to_string(),
            follows: self.revocations.last(&subject),
            host,
            secret_hash: HEXLOWER.encode(token.secret_hash().as_bytes()),
            created_by: by.to_owned(),
            created_at: now,
            expires_at: now.plus(life),
            ended: None,
        };
        let key = TokenRecord::key_of(token.id());
        let mut writes = vec![json::put(key.clone(), &record)];
        writes.extend(forgotten.keys.into_iter().map(|key| Write::Delete { key }));
        let absent = Compare {
            key,
            modified: Revision(0),
        };
        let transaction = Transaction {
            compares: vec![absent],
            writes,
        };
        match self.store.commit(transaction).await? {
            Committed::At(_) => Ok((token, record)),
            // Two of 2^64 ids are the same: the system's random numbers are none.
            Committed::Conflict => Err(TokensError::Make(TokenError::Random)),
        }
    }

    async fn entries(&self) -> Result<Vec<Entry>, RecordError> {
        let range = Range {
            prefix: PREFIX.to_owned(),
            beyond: None,
            at_most: usize::MAX,
            order: Order::Ascending,
        };
        Ok(self.store.list(range).await?.0)
    }

    /// Every token that is kept, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn all(&self) -> Result<Vec<TokenRecord>, TokensError> {
        let entries = self.entries().await?;
        let mut all = entries
            .iter()
            .map(json::read)
            .collect::<Result<Vec<TokenRecord>, _>>()?;
        all.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(all)
    }

    /// What is kept of a token.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get(&self, id: TokenId) -> Result<Option<Held>, TokensError> {
        let Some(entry) = self.store.get(&TokenRecord::key_of(id)).await? else {
            return Ok(None);
        };
        Ok(Some(Held {
            record: json::read(&entry)?,
            modified: entry.modified,
        }))
    }

    /// Notes that the host with the key of digest `key` has enrolled from `from`. False when the token has changed since
    /// it was read: read again and decide again.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn use_up(
        &self,
        held: &Held,
        from: String,
        key: String,
        now: UnixMillis,
    ) -> Result<bool, TokensError> {
        if held.record.ended.is_some() {
            // The same key again; it was noted the first time. It must not have been revoked meanwhile.
            return Ok(true);
        }
        let ended = Ended::Used { at: now, from, key };
        Ok(self.end(held, ended).await?.is_some())
    }

    /// Makes a token useless. One that was revoked already stays as it is.
    ///
    /// # Errors
    /// When there is none, it was used, or it cannot be stored.
    pub async fn revoke(&self, id: TokenId, by: &str) -> Result<TokenRecord, TokensError> {
        loop {
            let held = self.get(id).await?.ok_or(TokensError::NoSuchToken { id })?;
            match &held.record.ended {
                Some(Ended::Revoked { .. }) => return Ok(held.record),
                Some(Ended::Used { at, .. }) => {
                    let (at, host) = (*at, held.record.host.clone());
                    return Err(TokensError::AlreadyUsed { id, at, host });
                }
                None => {}
            }
            let ended = Ended::Revoked {
                at: UnixMillis::now(),
                by: by.to_owned(),
            };
            if let Some(record) = self.end(&held, ended).await? {
                return Ok(record);
            }
        }
    }

    /// None when it has changed since it was read.
    async fn end(&self, held: &Held, ended: Ended) -> Result<Option<TokenRecord>, TokensError> {
        let record = TokenRecord {
            ended: Some(ended),
            ..held.record.clone()
        };
        let key = format!("{PREFIX}{}", record.id);
        let transaction = Transaction {
            compares: vec![Compare {
                key: key.clone(),
                modified: held.modified,
            }],
            writes: vec![json::put(key, &record)],
        };
        Ok(match self.store.commit(transaction).await? {
            Committed::At(_) => Some(record),
            Committed::Conflict => None,
        })
    }
}

/// Tokens that are over.
struct Over {
    /// Those that nobody needs any more.
    keys: Vec<String>,
    /// How many are over and kept.
    kept_over: usize,
}

fn over(entries: &[Entry], now: UnixMillis) -> Result<Over, RecordError> {
    let mut over = Vec::new();
    for entry in entries {
        let record: TokenRecord = json::read(entry)?;
        if record.standing(now) != Standing::Open {
            over.push((record.over_at(), entry.key.clone()));
        }
    }
    over.sort_unstable();
    let superfluous = over.len().saturating_sub(OVER_AT_MOST);
    let is_old = |at: &UnixMillis| at.plus(OVER_AGE) < now;
    let count = over.len();
    let keys: Vec<_> = over
        .into_iter()
        .enumerate()
        .filter(|(place, (at, _))| *place < superfluous || is_old(at))
        .map(|(_, (_, key))| key)
        .collect();
    Ok(Over {
        kept_over: count - keys.len(),
        keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_follows_the_revocation_that_it_was_made_after_whatever_the_clocks_said() {
        let id = "00112233445566aa".parse().unwrap();
        let made = |created_at, follows: Option<i64>| TokenRecord {
            id: "00112233445566aa".to_owned(),
            host: "h1".parse().unwrap(),
            secret_hash: String::new(),
            created_by: String::new(),
            created_at: UnixMillis(created_at),
            expires_at: UnixMillis(i64::MAX),
            follows: follows.map(UnixMillis),
            ended: None,
        };
        let outlives =
            |token: TokenRecord, revoked: i64| token.outlives(id, Some(UnixMillis(revoked))).is_ok();
        assert!(outlives(made(100, None), 99) && !outlives(made(100, None), 100));
        // It covers what a clock that was ahead has made, and was known when the token was made.
        assert!(outlives(made(100, Some(5000)), 5000));
        assert!(!outlives(made(100, Some(5000)), 5001), "revoked again");
    }
}
