//! The newest certificate of each identity that this coordinator has made or met, stored under `/certificates/<subject>`.
//!
//! It lets nobody in and keeps nobody out; a revocation asks it what has to be covered. The invariant: what is made here is
//! noted before it is handed out, so that its host may be anywhere when it is revoked.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::throttle::Throttle;
use hostler_common::units::UnixMillis;
use hostler_pki::{Fingerprint, Identity, Subject};
use serde::{Deserialize, Serialize};

use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Order, Range, Revision, Store, Transaction, Write};

/// Where they lie in the store.
pub const PREFIX: &str = "/certificates/";

/// How long after its end a certificate is remembered, for people.
const KEPT: Duration = Duration::from_secs(90 * 86_400);

/// Identities that are remembered, some 300 bytes each: twice the largest fleet, and its people.
const AT_MOST: usize = 20_000;

/// Certificates that could not be noted and are logged.
static UNNOTED: Throttle = Throttle::new(5, Duration::from_secs(60));

/// What is stored of an identity's newest certificate. Later versions read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// Whom it names.
    pub identity: Identity,
    /// Its first moment. No certificate of the identity that is known begins later.
    pub not_before: UnixMillis,
    /// Its last moment.
    pub not_after: UnixMillis,
    /// The root that signed it.
    pub root: Fingerprint,
}

impl CertificateRecord {
    /// Two of one second are told apart by their roots, as when a new root begins to sign.
    fn is_newer_than(&self, before: &Self) -> bool {
        let is_of_another_root = self.not_before == before.not_before && self.root != before.root;
        is_of_another_root || self.not_before > before.not_before
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.identity.subject)
    }
}

/// Every one of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Known {
    store: Store,
    /// By subject, as it is written.
    held: Arc<RwLock<BTreeMap<String, CertificateRecord>>>,
    at_most: usize,
}

impl Known {
    /// Loads what is stored, and forgets what ended long ago.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn load(store: Store) -> Result<Self, RecordError> {
        let known = Self::empty(store);
        let range = Range {
            prefix: PREFIX.to_owned(),
            beyond: None,
            at_most: usize::MAX,
            order: Order::Ascending,
        };
        let mut forgotten = Vec::new();
        for entry in known.store.list(range).await?.0 {
            let record: CertificateRecord = json::read(&entry)?;
            match record.not_after.plus(KEPT) < UnixMillis::now() {
                true => forgotten.push(Write::Delete { key: entry.key }),
                false => known.hold(record),
            }
        }
        if !forgotten.is_empty() {
            let transaction = Transaction {
                compares: Vec::new(),
                writes: forgotten,
            };
            // What cannot be forgotten on a full disk is forgotten another time.
            if let Err(error) = known.store.commit(transaction).await {
                tracing::warn!(error = %Chain(&error), "old certificates are remembered longer");
            }
        }
        Ok(known)
    }

    /// Nobody is known.
    pub fn empty(store: Store) -> Self {
        Self {
            store,
            held: Arc::default(),
            at_most: AT_MOST,
        }
    }

    /// Of two that were stored one after the other, the later one may come here first.
    fn hold(&self, record: CertificateRecord) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let subject = record.identity.subject.to_string();
        if held
            .get(&subject)
            .is_none_or(|before| record.is_newer_than(before))
        {
            held.insert(subject, record);
        }
    }

    /// The newest certificate of `subject`.
    pub fn newest(&self, subject: &Subject) -> Option<CertificateRecord> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(&subject.to_string()).cloned()
    }

    /// The newest of each that has not ended.
    pub fn valid(&self, now: UnixMillis) -> Vec<CertificateRecord> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let valid = held.values().filter(|record| record.not_after >= now);
        valid.cloned().collect()
    }

    /// Everybody of whom there is one.
    pub fn subjects(&self) -> Vec<Subject> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values()
            .map(|record| record.identity.subject.clone())
            .collect()
    }

    fn is_news(&self, record: &CertificateRecord) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        match held.get(&record.identity.subject.to_string()) {
            Some(before) => record.is_newer_than(before),
            None => true,
        }
    }

    /// Where as many are known as may be, the one goes that ended first, as long as one has ended: nothing of it has to be covered.
    async fn makes_room(&self, record: &CertificateRecord) -> Result<bool, RecordError> {
        while let Some(oldest) = self.in_the_way_of(record) {
            if oldest.not_after >= UnixMillis::now() {
                return Ok(false);
            }
            let key = oldest.key();
            let entry = self.store.get(&key).await?;
            let stored: Option<CertificateRecord> = entry.as_ref().map(json::read).transpose()?;
            if let (Some(entry), true) = (entry, stored.as_ref() == Some(&oldest)) {
                let unchanged = Compare {
                    key: key.clone(),
                    modified: entry.modified,
                };
                let transaction = Transaction {
                    compares: vec![unchanged],
                    writes: vec![Write::Delete { key }],
                };
                self.store.commit(transaction).await?;
            }
            // One that is made at the same time is held again by whoever made it.
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            let subject = oldest.identity.subject.to_string();
            if held.get(&subject) == Some(&oldest) {
                held.remove(&subject);
            }
        }
        Ok(true)
    }

    /// The one that ends first, when there is no room for `record`.
    fn in_the_way_of(&self, record: &CertificateRecord) -> Option<CertificateRecord> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let has_room = held.len() < self.at_most || held.contains_key(&record.identity.subject.to_string());
        let oldest = held.values().min_by_key(|held| held.not_after);
        oldest.filter(|_| !has_room).cloned()
    }

    /// Notes a certificate that was made here, durably.
    ///
    /// # Errors
    /// When it cannot be stored: then it must not be handed out.
    pub async fn made(&self, record: CertificateRecord) -> Result<(), RecordError> {
        let key = record.key();
        while self.is_news(&record) {
            if !self.makes_room(&record).await? {
                if let Some(held_back) = UNNOTED.pass() {
                    tracing::warn!(identity = %record.identity, held_back, "too many certificates are known to note one more");
                }
                break;
            }
            let entry = self.store.get(&key).await?;
            let stored: Option<CertificateRecord> = entry.as_ref().map(json::read).transpose()?;
            // Another certificate of it was made at the same time.
            if let Some(newer) = stored.filter(|stored| !record.is_newer_than(stored)) {
                self.hold(newer);
                break;
            }
            let transaction = Transaction {
                compares: vec![Compare {
                    key: key.clone(),
                    modified: entry.map_or(Revision(0), |entry| entry.modified),
                }],
                writes: vec![json::put(key.clone(), &record)],
            };
            if let Committed::At(_) = self.store.commit(transaction).await? {
                self.hold(record);
                break;
            }
        }
        Ok(())
    }

    /// Notes a certificate that somebody came with, also one made by hand. When it cannot be stored it is met again.
    pub async fn met(&self, record: CertificateRecord) {
        if let Err(error) = self.made(record).await
            && let Some(held_back) = UNNOTED.pass()
        {
            tracing::warn!(error = %Chain(&error), held_back, "a certificate that is in use cannot be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn certificate(path: &str, not_before: i64) -> CertificateRecord {
        CertificateRecord {
            identity: format!("spiffe://fleet.test/{path}").parse().unwrap(),
            not_before: UnixMillis(not_before),
            not_after: UnixMillis::now().plus(Duration::from_secs(60)),
            root: Fingerprint::from_bytes([1; 32]),
        }
    }

    fn store() -> (Store, TempDir) {
        let dir = TempDir::new().unwrap();
        (Store::open(dir.path()).unwrap(), dir)
    }

    #[tokio::test]
    async fn the_newest_of_each_is_known_also_after_a_restart() {
        let (store, _dir) = store();
        let known = Known::empty(store.clone());
        for not_before in [2000, 3000, 1000] {
            known.made(certificate("agent/a", not_before)).await.unwrap();
        }
        known.met(certificate("client/viewer/v", 5)).await;
        let known = Known::load(store).await.unwrap();
        let subjects: Vec<_> = known.subjects().iter().map(ToString::to_string).collect();
        assert_eq!(subjects, ["agent/a", "client/viewer/v"]);
        let newest = known.newest(&known.subjects()[0]).unwrap();
        assert_eq!(newest.not_before, UnixMillis(3000));
    }

    #[tokio::test]
    async fn what_is_known_is_never_put_back() {
        let (store, _dir) = store();
        let known = Known::empty(store);
        known.hold(certificate("agent/a", 3000));
        known.hold(certificate("agent/a", 2000));
        let newest = known.newest(&known.subjects()[0]).unwrap();
        assert_eq!(newest.not_before, UnixMillis(3000));
    }

    #[tokio::test]
    async fn where_there_are_too_many_the_one_goes_that_ended_first() {
        let (store, _dir) = store();
        let known = Known {
            at_most: 2,
            ..Known::empty(store.clone())
        };
        let ended = |path, not_after| CertificateRecord {
            not_after: UnixMillis(not_after),
            ..certificate(path, 0)
        };
        for record in [
            ended("agent/a", 2000),
            ended("agent/b", 1000),
            certificate("agent/c", 0),
            certificate("agent/d", 0),
            certificate("agent/e", 0),
            certificate("agent/c", 1),
        ] {
            known.made(record).await.unwrap();
        }
        for known in [&known, &Known::load(store).await.unwrap()] {
            let subjects: Vec<_> = known.subjects().iter().map(ToString::to_string).collect();
            assert_eq!(subjects, ["agent/c", "agent/d"]);
            assert_eq!(
                known.newest(&known.subjects()[0]).unwrap().not_before,
                UnixMillis(1)
            );
        }
    }

    #[tokio::test]
    async fn one_that_ended_long_ago_is_forgotten() {
        let (store, _dir) = store();
        let long_ago = CertificateRecord {
            not_after: UnixMillis(0),
            ..certificate("agent/a", 0)
        };
        Known::empty(store.clone()).made(long_ago).await.unwrap();
        for _ in 0..2 {
            let known = Known::load(store.clone()).await.unwrap();
            assert_eq!(known.subjects(), []);
        }
    }
}
