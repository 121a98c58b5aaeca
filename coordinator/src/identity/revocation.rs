//! Identities whose certificates up to a moment are refused: stored under `/revocations/<subject>`, and held in memory
//! because every handshake asks.
//!
//! It never forgets one. The invariants: what is stored is in memory before anything is served, and again before who
//! revoked is answered; and then no connection that a revocation covers is left.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::units::UnixMillis;
use hostler_pki::revocation::covers;
use hostler_pki::{Identity, Revocations, Subject};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::task::JoinSet;

use super::connections::{Connections, Left};
use super::known::Known;
use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Event, Order, Range, Revision, Store, Transaction, Watch, Write};

/// Where revocations lie in the store.
pub const PREFIX: &str = "/revocations/";

/// How long connections may take to end. They are cut in memory; only a call that hangs keeps one.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Identities that can be revoked: each is in memory and asked for in every handshake.
const AT_MOST: usize = 10_000;

/// What is stored of a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRecord {
    /// Whose certificates.
    pub identity: Identity,
    /// Those that begin at or before this.
    pub revoked_at: UnixMillis,
    /// The URI of who did it.
    pub revoked_by: String,
    /// Why.
    pub reason: String,
}

impl RevocationRecord {
    pub(super) fn key_of(subject: &Subject) -> String {
        format!("{PREFIX}{subject}")
    }
}

/// A revocation that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// What is stored.
    pub record: RevocationRecord,
    /// Connections that it ended.
    pub connections_ended: usize,
}

/// Why somebody is not revoked, or not wholly.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// By mistake, or under duress; then nobody could take it back.
    #[error(
        "{identity} is your own certificate: after this you could not come back. Revoke it as another admin; hostler-pki issue client makes a certificate for one"
    )]
    OneOwn {
        /// Whom the certificate names.
        identity: Box<Identity>,
    },
    /// It would have no effect.
    #[error(
        "{identity} is a coordinator, and agents do not ask who is revoked: stop it, and take its CA out of the fleet with hostler-pki rotate-ca"
    )]
    Coordinator {
        /// Whom the certificate names.
        identity: Box<Identity>,
    },
    /// Too many are kept.
    #[error(
        "{AT_MOST} identities are revoked already; rotate the CA with hostler-pki rotate-ca, which ends all old certificates"
    )]
    TooMany,
    /// It holds, but something of it still runs.
    #[error(
        "{identity} is revoked and no new connection is taken, but {} of its connections have not ended within {} s ({}); they end with the coordinator: restart it",
        left.len(), END_PATIENCE.as_secs(), listed(left)
    )]
    NotGone {
        /// Whose.
        identity: Box<Identity>,
        /// Which.
        left: Vec<Left>,
    },
    /// The store failed.
    #[error("the revocation could not be stored")]
    Record(#[source] RecordError),
}

/// Connections that a sentence names.
const NAMED_AT_MOST: usize = 4;

fn listed(left: &[Left]) -> String {
    let named: Vec<_> = left.iter().take(NAMED_AT_MOST).map(Left::to_string).collect();
    named.join("; ")
}

impl<E: Into<RecordError>> From<E> for RevokeError {
    fn from(error: E) -> Self {
        Self::Record(error.into())
    }
}

/// Every revocation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RevocationList {
    store: Store,
    connections: Connections,
    known: Known,
    /// By subject, as it is written.
    held: Arc<RwLock<BTreeMap<String, RevocationRecord>>>,
}

impl RevocationList {
    /// Loads what is stored, and follows the store in `tasks`. Connections are cut in `connections`; what is in `known` is
    /// covered.
    ///
    /// # Errors
    /// When it cannot be read: then nothing may be served.
    pub async fn load(
        store: Store,
        connections: Connections,
        known: Known,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, RecordError> {
        let watch = store.watch();
        let list = Self::empty(store, connections, known);
        list.read_all().await?;
        tasks.spawn(list.clone().follow(watch));
        Ok(list)
    }

    /// Nobody is revoked, and nobody looks.
    pub fn empty(store: Store, connections: Connections, known: Known) -> Self {
        Self {
            store,
            connections,
            known,
            held: Arc::default(),
        }
    }

    async fn read_all(&self) -> Result<(), RecordError> {
        let range = Range {
            prefix: PREFIX.to_owned(),
            beyond: None,
            at_most: usize::MAX,
            order: Order::Ascending,
        };
        for entry in self.store.list(range).await?.0 {
            self.take(json::read(&entry)?);
        }
        Ok(())
    }

    async fn follow(self, mut watch: Watch) {
        loop {
            let taken = match watch.next().await {
                Ok(Some(event)) => self.take_event(&event),
                Ok(None) => return,
                Err(_lagged) => self.read_all().await,
            };
            if let Err(error) = taken {
                // The process ends with this task: one who is revoked must not be let in.
                tracing::error!(error = %Chain(&error), "revocations cannot be read");
                return;
            }
        }
    }

    fn take_event(&self, event: &Event) -> Result<(), RecordError> {
        for write in &event.writes {
            if let Write::Put { key, value } = write
                && key.starts_with(PREFIX)
            {
                self.take(json::read_value(key, value)?);
            }
        }
        Ok(())
    }

    /// From now on it holds.
    fn take(&self, record: RevocationRecord) {
        let (subject, at) = (record.identity.subject.clone(), record.revoked_at);
        {
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            let before = held.get(&subject.to_string()).map(|before| before.revoked_at);
            if before.is_none_or(|before| before <= at) {
                held.insert(subject.to_string(), record);
            }
        }
        // After it is held: a handshake that is not in the list yet looks once more when it is.
        self.connections.cut(&subject, at);
    }

    /// When the certificates of `subject` were revoked the last time.
    pub fn last(&self, subject: &Subject) -> Option<UnixMillis> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(&subject.to_string()).map(|record| record.revoked_at)
    }

    /// When a certificate of `subject` that is valid from `not_before` was revoked.
    pub fn revoked(&self, subject: &Subject, not_before: UnixMillis) -> Option<UnixMillis> {
        self.last(subject).filter(|at| covers(*at, not_before))
    }

    /// What every handshake asks.
    pub fn asked(&self) -> Revocations {
        let list = self.clone();
        Revocations::new(move |subject, not_before| list.revoked(subject, not_before))
    }

    /// Every revocation, by subject.
    pub fn all(&self) -> Vec<RevocationRecord> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values().cloned().collect()
    }

    /// Revokes every certificate of `identity` that exists now, and returns once none of its connections is left.
    ///
    /// # Errors
    /// When it may not be, or cannot be stored; and when connections do not end, though it holds.
    pub async fn revoke(
        &self,
        identity: &Identity,
        by: &Identity,
        reason: &str,
    ) -> Result<Revoked, RevokeError> {
        let boxed = || Box::new(identity.clone());
        if identity == by {
            return Err(RevokeError::OneOwn { identity: boxed() });
        }
        let subject = &identity.subject;
        if matches!(subject, Subject::Coordinator { .. }) {
            return Err(RevokeError::Coordinator { identity: boxed() });
        }
        let (key, is_known) = (RevocationRecord::key_of(subject), self.last(subject).is_some());
        if !is_known && self.all().len() >= AT_MOST {
            return Err(RevokeError::TooMany);
        }
        let (record, mut ended) = loop {
            let entry = self.store.get(&key).await?;
            let before: Option<RevocationRecord> = entry.as_ref().map(json::read).transpose()?;
            let record = RevocationRecord {
                identity: identity.clone(),
                revoked_at: self.moment(subject, before.as_ref()),
                revoked_by: by.to_string(),
                reason: reason.to_owned(),
            };
            // Whoever follows the store may cut them before this call does.
            let ended = self.connections.covered(subject, record.revoked_at);
            let transaction = Transaction {
                compares: vec![Compare {
                    key: key.clone(),
                    modified: entry.map_or(Revision(0), |entry| entry.modified),
                }],
                writes: vec![json::put(key.clone(), &record)],
            };
            if let Committed::At(_) = self.store.commit(transaction).await? {
                break (record, ended);
            }
        };
        self.take(record.clone());
        ended.extend(self.connections.covered(subject, record.revoked_at));
        ended.sort_unstable();
        ended.dedup();
        let gone = tokio::time::timeout(END_PATIENCE, self.connections.gone(&ended)).await;
        if gone.is_err() {
            return Err(RevokeError::NotGone {
                identity: boxed(),
                left: self.connections.left(&ended),
            });
        }
        self.pass_what_was_sent(key).await?;
        Ok(Revoked {
            record,
            connections_ended: ended.len(),
        })
    }

    /// Up to when a revocation that is made now has to reach. A clock that went back takes nothing back, and spares no
    /// certificate that was made before it did, wherever that is. Never where the one before reaches: a token that was made
    /// between the two follows that one only.
    fn moment(&self, subject: &Subject, before: Option<&RevocationRecord>) -> UnixMillis {
        let known = self.known.newest(subject).map(|newest| newest.not_before);
        let begun = [
            before.map(|before| before.revoked_at.plus(Duration::from_millis(1))),
            self.connections.newest(subject),
            known,
        ];
        begun
            .into_iter()
            .flatten()
            .fold(UnixMillis::now(), UnixMillis::max)
    }

    /// Returns once the store has handled all that was sent to it before. The key is there, so that nothing is written.
    async fn pass_what_was_sent(&self, key: String) -> Result<(), RecordError> {
        let absent = Compare {
            key,
            modified: Revision(0),
        };
        self.store
            .commit(Transaction {
                compares: vec![absent],
                writes: Vec::new(),
            })
            .await?;
        Ok(())
    }
}
