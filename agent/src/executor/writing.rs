//! A run's journal: found or begun, and written on under the newest lease.
//!
//! The invariant: the fence of a lease is durable before anything is done under it, and after a write that failed
//! the run is over, since what the journal does not say must not be done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::{OperationId, ResourceName};
use tokio::sync::watch;

use super::run::{Accepted, Lease};
use super::state::{Ending, Outcome};
use crate::blocking::Blocking;
use crate::failpoint;
use crate::journal::log::{OperationLog, WriteError};
use crate::journal::record::{self, Entry, Record};
use crate::journal::state_dir::StateDir;

/// A journal write waits for the disk; a disk that takes longer is as good as broken.
const DISK_DEADLINE: Duration = Duration::from_secs(30);

/// Something that nobody can say more about without looking.
pub(super) fn attention(message: String) -> Ending {
    Ending {
        outcome: Outcome::NeedsAttention,
        message,
    }
}

/// The journal of a run, open.
pub(super) struct Journal {
    operation: OperationId,
    resource: ResourceName,
    files: Blocking,
    state_dir: Arc<StateDir>,
    lease: watch::Receiver<Lease>,
    /// Only one call at a time has it; the lock lets it wander between threads.
    log: Arc<Mutex<OperationLog>>,
}

impl Journal {
    /// Makes the lease durable, and finds or begins the journal. Answers with what was in it. Err is the
    /// operation's end.
    pub(super) async fn open(
        accepted: &Accepted,
        files: Blocking,
        state_dir: Arc<StateDir>,
        mut lease: watch::Receiver<Lease>,
    ) -> Result<(Self, Vec<Record>), Ending> {
        let current = lease.borrow_and_update().clone();
        let (opened, dir) = (accepted.clone(), Arc::clone(&state_dir));
        let (records, log) = files
            .run("opening the journal", DISK_DEADLINE, move || {
                open(&dir, &opened, current)
            })
            .await
            .map_err(|fault| {
                attention(format!("{fault}; nothing was done, unless by an earlier attempt"))
            })??;
        let journal = Self {
            operation: accepted.operation,
            resource: accepted.resource.clone(),
            files,
            state_dir,
            lease,
            log: Arc::new(Mutex::new(log)),
        };
        Ok((journal, records))
    }

    /// Writes `entry`, after a lease that arrived meanwhile. Err is the operation's end.
    pub(super) async fn write(&mut self, entry: Entry) -> Result<(), Ending> {
        let renewed = self.lease.has_changed().unwrap_or(false);
        let took = renewed.then(|| self.lease.borrow_and_update().clone());
        let log = Arc::clone(&self.log);
        let (state_dir, resource) = (Arc::clone(&self.state_dir), self.resource.clone());
        let written = self
            .files
            .run("writing the journal", DISK_DEADLINE, move || {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                let mut append =
                    |entry: Entry| append(&mut log, entry).map_err(|error| Chain(&error).to_string());
                if let Some(Lease { fence, token }) = took {
                    state_dir.fences().see(&resource, fence);
                    append(Entry::Took { fence, token })?;
                }
                append(entry)
            })
            .await;
        let cause = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) => cause,
            Err(fault) => fault.to_string(),
        };
        tracing::error!(operation = %self.operation, cause, "the operation stops: its journal cannot be written");
        Err(attention(format!(
            "{cause}; the operation stopped where it was and nothing was undone"
        )))
    }

    /// Writes the end, so that it is not run again after a crash.
    pub(super) async fn end(&mut self, ending: Ending) -> Ending {
        let entry = Entry::Ended {
            outcome: ending.outcome,
            message: ending.message.clone(),
        };
        match self.write(entry).await {
            Ok(()) => ending,
            Err(unwritten) => unwritten,
        }
    }
}

/// Blocks. Err is the operation's end.
fn open(
    state_dir: &StateDir,
    accepted: &Accepted,
    lease: Lease,
) -> Result<(Vec<Record>, OperationLog), Ending> {
    let records = state_dir
        .records(accepted.operation)
        .map_err(|error| attention(format!("{}; nobody knows how far it came", Chain(&error))))?;
    let unwritten = |cause: String| match records.is_empty() {
        true => Ending {
            outcome: Outcome::Failed,
            message: format!("{cause}; nothing was done"),
        },
        false => attention(format!(
            "{cause}; the operation stays where an earlier attempt left it"
        )),
    };
    // Durable with the entry below.
    state_dir.fences().see(&accepted.resource, lease.fence);
    let Lease { fence, token } = lease;
    let entry = match records.is_empty() {
        true => Entry::Begun {
            version: record::VERSION,
            operation: accepted.operation,
            resource: accepted.resource.clone(),
            fence,
            token,
            request: (&accepted.request).into(),
            attempt: accepted.attempt,
        },
        false => Entry::Took { fence, token },
    };
    let mut log = state_dir
        .log(accepted.operation)
        .map_err(|error| unwritten(Chain(&error).to_string()))?;
    append(&mut log, entry).map_err(|error| unwritten(Chain(&error).to_string()))?;
    Ok((records, log))
}

/// Blocks.
fn append(log: &mut OperationLog, entry: Entry) -> Result<(), WriteError> {
    let (before, after) = failpoint::around(&entry);
    before.pass();
    log.append(entry)?;
    after.pass();
    Ok(())
}
