//! The audit log: what was changed and what was refused, by whom, as JSON lines in the data directory.
//!
//! It decides nothing, and nothing waits for it: what cannot be written is counted and told, and operations go on. The
//! invariants: one writer; no secret is in it; no rpc but a read of [`table`] goes without a line.

mod entry;
pub mod layer;
mod reader;
mod request;
pub mod retold;
mod shape;
pub mod table;
mod writer;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hostler_common::id::OperationId;
use hostler_common::throttle::Throttle;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::entry::Refused;
pub use self::entry::{Entry, Event};
pub use self::reader::{Asked, Lines, read};
use self::writer::{Order, Snapshot};

/// Entries that wait for the disk: some seconds of the most calls that there are, at a few KiB each.
const QUEUE_BOUND: usize = 4096;

/// Refusals that are written one by one; anybody can cause them. The others are counted.
const REFUSALS_AT_MOST: u32 = 50;
const REFUSALS_PERIOD: Duration = Duration::from_secs(10);

/// The same of those whom nobody knows: a storm of them neither hides what somebody with a certificate was refused, nor pushes the
/// old lines out within a day. It makes 10 MiB a day at most, each. Those who enrol, those of them who come with a token that was made
/// here, those who come without a good certificate, and those whose certificate is ours and taken no more have this measure each, so that
/// no storm hides others.
const STRANGERS_AT_MOST: u32 = 20;
const STRANGERS_PERIOD: Duration = Duration::from_secs(60);

/// Who reads the log at once: each has a thread, and up to 32 MiB of lines.
const READERS_AT_MOST: usize = 4;

static READERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(READERS_AT_MOST)));

/// The log cannot be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit log is busy: too many read it, or its disk is slow; again in a moment")]
pub struct Busy;

/// How long the end of the process waits for the disk.
const END_PATIENCE: Duration = Duration::from_secs(5);

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// What is kept of a call's answers, in bytes, but for the last of them; an entry shows 500 characters.
const SAID_AT_MOST: usize = 500;

/// What a handler says of the call that it serves.
#[derive(Debug, Default)]
struct Notes {
    operations: Vec<OperationId>,
    said: String,
    routine: bool,
}

/// The call that is served has made this operation.
pub fn made(operation: OperationId) {
    // An error means that no call is served.
    let _ = NOTES.try_with(|notes| notes.borrow_mut().operations.push(operation));
}

/// The call that is served is answered with these words, among others.
pub fn said(words: &str) {
    let _ = NOTES.try_with(|notes| {
        let said = &mut notes.borrow_mut().said;
        // Bulk calls have an answer for each of thousands; an entry keeps the beginning.
        if said.len() < SAID_AT_MOST {
            let between = if said.is_empty() { "" } else { "; " };
            *said += between;
            *said += words;
        }
    });
}

/// The call that is served only repeats what is in the log, as the renewal of a lock does.
pub fn routine() {
    let _ = NOTES.try_with(|notes| notes.borrow_mut().routine = true);
}

/// Where the log lies.
fn place(data_dir: &Path) -> PathBuf {
    data_dir.join("audit")
}

/// Writes to the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    orders: SyncSender<Order>,
    state: Arc<State>,
    measures: Measures,
}

/// How much is written one by one, for each of [`Refused`].
#[derive(Debug)]
struct Measures {
    peers: Throttle,
    holders: Throttle,
    guessers: Throttle,
    strangers: Throttle,
    outcasts: Throttle,
}

impl Measures {
    fn new() -> Self {
        let unknown = || Throttle::new(STRANGERS_AT_MOST, STRANGERS_PERIOD);
        Self {
            peers: Throttle::new(REFUSALS_AT_MOST, REFUSALS_PERIOD),
            holders: unknown(),
            guessers: unknown(),
            strangers: unknown(),
            outcasts: unknown(),
        }
    }

    fn of(&self, whom: Refused) -> &Throttle {
        match whom {
            Refused::Peer => &self.peers,
            Refused::Holder => &self.holders,
            Refused::Guesser => &self.guessers,
            Refused::Stranger => &self.strangers,
            Refused::Outcast => &self.outcasts,
        }
    }
}

/// What the writer and the others share.
#[derive(Debug, Default)]
struct State {
    /// Refusals that were not written one by one.
    held_back: AtomicU64,
    /// Entries for which there was no room.
    lost: AtomicU64,
    /// The disk does not take entries.
    troubled: AtomicBool,
}

impl Audit {
    /// Nothing is written.
    pub fn off() -> Self {
        Self(None)
    }

    /// Starts the writer in `data_dir`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(data_dir: &Path) -> std::io::Result<Self> {
        let (orders, queue) = sync_channel(QUEUE_BOUND);
        let state = Arc::new(State::default());
        writer::spawn(place(data_dir), queue, Arc::clone(&state))?;
        Ok(Self(Some(Arc::new(Inner {
            orders,
            state,
            measures: Measures::new(),
        }))))
    }

    /// Writes an entry, unless a storm of refusals makes it one of many.
    pub fn note(&self, entry: &Entry) {
        let Some(inner) = &self.0 else { return };
        let measure = entry.refused_whom().map(|whom| inner.measures.of(whom));
        if measure.is_some_and(|measure| measure.pass().is_none()) {
            inner.state.held_back.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Err(TrySendError::Full(_)) = inner.orders.try_send(Order::Write(entry.to_line())) {
            inner.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a person should know of it; None when all is well.
    pub fn trouble(&self) -> Option<String> {
        let inner = self.0.as_ref()?;
        inner.state.troubled.load(Ordering::Relaxed).then(|| {
            "the audit log cannot be written; operations go on without it: see the coordinator's log and the disk of its data_dir"
                .to_owned()
        })
    }

    /// Everything that is written, and what comes after it. None when nothing is written at all.
    async fn snapshot(&self) -> Result<Option<Snapshot>, Busy> {
        let Some(inner) = &self.0 else { return Ok(None) };
        let (answer, answered) = oneshot::channel();
        inner.orders.try_send(Order::Look(answer)).map_err(|_| Busy)?;
        answered.await.map(Some).map_err(|_| Busy)
    }

    /// A place among those who read.
    fn place() -> Result<OwnedSemaphorePermit, Busy> {
        Arc::clone(&READERS).try_acquire_owned().map_err(|_| Busy)
    }

    /// Returns once what was noted is on the disk, or the disk has had its time.
    pub async fn end(&self) {
        let Some(inner) = &self.0 else { return };
        let (answer, answered) = oneshot::channel();
        if inner.orders.try_send(Order::Sync(answer)).is_ok() {
            // Either way the process ends.
            let _ = tokio::time::timeout(END_PATIENCE, answered).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_storm_of_strangers_hides_no_refusal_of_somebody_with_a_certificate_or_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::start(dir.path()).unwrap();
        let storm = 1000;
        for _ in 0..storm {
            let passing = Entry::refused(
                Event::Handshake,
                "",
                "192.0.2.9:1",
                Code::Unauthenticated,
                "passing",
            );
            audit.note(&passing);
            let revoked = Entry::refused(
                Event::Handshake,
                "spiffe://x/agent/revoked",
                "192.0.2.6:1",
                Code::Unauthenticated,
                "revoked",
            );
            audit.note(&revoked);
            let guess = Entry::refused(Event::Enrolment, "", "192.0.2.7:1", Code::PermissionDenied, "no");
            audit.note(&guess);
        }
        let denied = Entry::refused(
            Event::Call,
            "spiffe://x/client/viewer/v",
            "",
            Code::PermissionDenied,
            "no",
        );
        audit.note(&denied);
        let used = Entry::refused(
            Event::Enrolment,
            "",
            "192.0.2.8:1",
            Code::PermissionDenied,
            "used",
        );
        audit.note(&used.of_a_holder());
        audit.end().await;
        let text = std::fs::read_to_string(dir.path().join("audit/audit.jsonl")).unwrap();
        let count = |event: &str| text.lines().filter(|line| line.contains(event)).count();
        assert_eq!(count(r#""event":"call""#), 1, "{text}");
        assert_eq!(count(r#""message":"used""#), 1, "{text}");
        let guesses = count("192.0.2.7");
        assert!((1..storm / 10).contains(&guesses), "{guesses}");
        let passing = count("192.0.2.9");
        assert!((1..storm / 10).contains(&passing), "{passing}");
        let revoked = count("192.0.2.6");
        assert!((1..storm / 10).contains(&revoked), "{revoked}");
        assert!(
            text.contains(&format!(
                r#""held_back":{}"#,
                3 * storm - guesses - passing - revoked
            )),
            "{text}"
        );
    }
}
