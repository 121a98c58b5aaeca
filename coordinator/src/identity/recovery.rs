//! What a store that was restored has forgotten of identities: revocations come back from the audit log, and tokens that
//! somebody may have used since the copy was made are closed.
//!
//! It takes back nothing that holds. The invariant: who was revoked is not let in again by a copy of before, as far as the
//! log in the same directory reaches.

use std::path::Path;
use std::time::Duration;

use hostler_common::units::UnixMillis;
use hostler_pki::{Role, Subject};

use super::revocation::RevocationRecord;
use super::tokens::{self, Ended, Standing, TokenRecord};
use crate::audit::retold::{self, Retold};
use crate::operation::sentences;
use crate::store::json::{self, RecordError};
use crate::store::{Committed, Compare, Order, Range, Revision, Store, Transaction};

/// The log's times are rounded, and a clock is corrected a little: a revocation of so long before it was asked for is that one.
const SLACK: Duration = Duration::from_secs(1);

/// Who closes tokens, for people.
const CLOSED_BY: &str = "hostler-coordinator --accept-loss";

/// Stores every revocation that the audit log in `data_dir` tells of and `store` lacks. Answers with those. Reads files, and
/// so blocks; called before anything is served.
///
/// # Errors
/// When one cannot be stored: then nothing may be served.
pub async fn revocations(store: &Store, data_dir: &Path) -> Result<Vec<RevocationRecord>, RecordError> {
    let mut recovered = Vec::new();
    for told in retold::revocations(data_dir) {
        if may_hold(&told) {
            recovered.extend(recover(store, told).await?);
        }
    }
    Ok(recovered)
}

/// False of what was refused, also when nobody waited for the answer: nobody revokes by hanging up what they may not revoke.
fn may_hold(told: &Retold) -> bool {
    let is_admins = matches!(
        told.by.subject,
        Subject::Client {
            role: Role::Admin,
            ..
        }
    );
    let is_a_coordinator = matches!(told.identity.subject, Subject::Coordinator { .. });
    is_admins && !is_a_coordinator && told.identity != told.by
}

/// None when the store knows it.
async fn recover(store: &Store, told: Retold) -> Result<Option<RevocationRecord>, RecordError> {
    let key = RevocationRecord::key_of(&told.identity.subject);
    loop {
        let entry = store.get(&key).await?;
        let stored: Option<RevocationRecord> = entry.as_ref().map(json::read).transpose()?;
        if stored.is_some_and(|stored| stored.revoked_at.plus(SLACK) >= told.asked_at) {
            return Ok(None);
        }
        let record = RevocationRecord {
            identity: told.identity.clone(),
            revoked_at: told.answered_at,
            revoked_by: told.by.to_string(),
            reason: sentences::line(told.reason.trim()),
        };
        let transaction = Transaction {
            compares: vec![Compare {
                key: key.clone(),
                modified: entry.map_or(Revision(0), |entry| entry.modified),
            }],
            writes: vec![json::put(key.clone(), &record)],
        };
        if let Committed::At(_) = store.commit(transaction).await? {
            return Ok(Some(record));
        }
    }
}

/// Revokes every token that may be used by `store`: it may have been used since. Answers with how many.
///
/// # Errors
/// When the store fails. Then none is closed.
pub async fn close_tokens(store: &Store) -> Result<usize, RecordError> {
    let range = Range {
        prefix: tokens::PREFIX.to_owned(),
        beyond: None,
        at_most: usize::MAX,
        order: Order::Ascending,
    };
    let now = UnixMillis::now();
    let mut writes = Vec::new();
    for entry in store.list(range).await?.0 {
        let record: TokenRecord = json::read(&entry)?;
        if record.standing(now) == Standing::Open {
            let ended = Some(Ended::Revoked {
                at: now,
                by: CLOSED_BY.to_owned(),
            });
            writes.push(json::put(entry.key, &TokenRecord { ended, ..record }));
        }
    }
    let closed = writes.len();
    if closed > 0 {
        // Nobody else has the store: nothing is compared.
        store
            .commit(Transaction {
                compares: Vec::new(),
                writes,
            })
            .await?;
    }
    Ok(closed)
}
