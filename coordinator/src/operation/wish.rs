//! What a client wants becomes a durable operation, joins the same that runs already, or is refused.
//!
//! All wishes of one call are one commit, decided under the compare that no queue moved meanwhile.

use hostler_common::id::{Fence, HostName, OperationId, ResourceName};
use hostler_common::operation::{Purpose, Request, RequestError};
use hostler_common::units::UnixMillis;
use prost_types::Any;

use super::engine::{Engine, EngineError, put};
use super::locks::{Lock, QUEUE_AT_MOST};
use super::reading::{Held, Source};
use super::record::{Logs, OperationRecord, StoredRequest};
use super::sentences;
use super::state::{Life, Phase};
use crate::failpoint::Point;
use crate::store::json;
use crate::store::{Compare, Revision, Transaction};

/// A request as it was received, and what it asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    received: Any,
    request: Request,
}

impl Asked {
    /// Understands `received`.
    ///
    /// # Errors
    /// When it asks for nothing that makes sense.
    pub fn new(received: Any) -> Result<Self, RequestError> {
        Ok(Self {
            request: Request::of(&received)?,
            received,
        })
    }

    /// As it was received.
    pub fn received(&self) -> &Any {
        &self.received
    }
}

/// What a client wants of one resource.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What.
    pub asked: Asked,
    /// Of which resource.
    pub resource: ResourceName,
    /// On which host.
    pub host: HostName,
}

impl Wanted {
    /// Whether `running` does just this. One that somebody has cancelled does not, nor does one of a type that
    /// this version does not know.
    fn is_what(&self, running: &OperationRecord) -> bool {
        let asked = Request::of(&Any::from(&running.request));
        running.cancel.is_none() && asked.is_ok_and(|asked| asked == self.asked.request)
    }
}

/// Who asks, and why.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The URI of its certificate.
    pub identity: String,
    /// In its own words; may be empty.
    pub reason: String,
}

/// What became of a wish. It is durable.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// A new operation.
    New(Box<OperationRecord>),
    /// The same was asked before and has not ended.
    Attached(OperationId),
    /// Nothing may be queued.
    Refused(String),
}

impl Engine {
    /// Makes every wish durable in one commit, attaching to what runs already.
    ///
    /// # Errors
    /// When the store fails; then nothing was accepted.
    pub async fn submit(&self, wishes: &[Wanted], asker: &Asker) -> Result<Vec<Submitted>, EngineError> {
        let mut source = Source::Registry;
        loop {
            let locks = self
                .locks(source, wishes.iter().map(|wish| &wish.resource))
                .await?;
            let mut transaction = Transaction::default();
            let mut outcomes = Vec::with_capacity(wishes.len());
            for (wish, lock) in wishes.iter().zip(locks) {
                outcomes.push(self.decide(wish, asker, lock, &mut transaction).await?);
            }
            let is_new = |outcome: &Submitted| matches!(outcome, Submitted::New(_));
            if source == Source::Registry && !outcomes.iter().all(is_new) {
                source = Source::Store;
                continue;
            }
            if transaction.writes.is_empty() {
                return Ok(outcomes);
            }
            Point::SubmitBefore.pass();
            if self.commit(transaction).await? {
                Point::SubmitAfter.pass();
                return Ok(outcomes);
            }
            source = Source::Store;
        }
    }

    async fn decide(
        &self,
        wish: &Wanted,
        asker: &Asker,
        lock: Held<Lock>,
        transaction: &mut Transaction,
    ) -> Result<Submitted, EngineError> {
        let resource = &wish.resource;
        let Held {
            value: mut lock,
            modified,
        } = lock;
        if let Some(id) = lock.attention {
            return Ok(Submitted::Refused(sentences::attention(resource, id)));
        }
        let mut waits_for = None;
        if let Some(last) = lock.queue.last().copied() {
            let last = self.operation(last).await?;
            if wish.is_what(&last.value) {
                // The compare holds the queue still while others join it.
                transaction.compares.push(Compare {
                    key: Lock::key(resource),
                    modified,
                });
                return Ok(Submitted::Attached(last.value.id));
            }
            if lock.queue.len() >= QUEUE_AT_MOST {
                return Ok(Submitted::Refused(format!(
                    "{resource} is busy: {} operations wait on it already; see `hostler operations list --unended`",
                    lock.queue.len()
                )));
            }
            waits_for = Some(last.value);
        }
        let record = new_record(wish, asker, waits_for.as_ref());
        lock.queue.push(record.id);
        transaction.compares.push(Compare {
            key: OperationRecord::key(record.id),
            modified: Revision(0),
        });
        put(transaction, Lock::key(resource), &lock, modified);
        transaction
            .writes
            .push(json::put(OperationRecord::key(record.id), &record));
        Ok(Submitted::New(Box::new(record)))
    }
}

fn new_record(wish: &Wanted, asker: &Asker, waits_for: Option<&OperationRecord>) -> OperationRecord {
    let id = OperationId::generate();
    let now = UnixMillis::now();
    let request = &wish.asked.request;
    let what = format!(
        "operation {id}: {} on host {}",
        sentences::what(request, &wish.resource),
        wish.host
    );
    let mut logs = Logs::default();
    logs.push(
        now,
        match waits_for {
            None => format!("{what}: scheduled"),
            Some(first) => format!("{what}: {}", sentences::waits_for(first)),
        },
    );
    OperationRecord {
        id,
        resource: wish.resource.clone(),
        host: wish.host.clone(),
        kind: Purpose::Work(request.kind()),
        request: StoredRequest::from(&wish.asked.received),
        requested_by: asker.identity.clone(),
        requested_at: now,
        reason: asker.reason.clone(),
        life: Life {
            phase: Phase::Scheduled,
            attempts: 0,
        },
        fence: Fence::default(),
        logs,
        ended_at: None,
        cancel: None,
    }
}
