//! Locks that dead processes left in the repository, and waiting for living ones.
//!
//! restic 0.14 regards a lock as stale when its process ran on this host and is gone, or when it has not been
//! renewed for 30 minutes; a living restic renews every five. `restic unlock` removes such locks and no others, so
//! nothing here ever takes a lock from a living process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hostler_common::error::Chain;

use super::fault::ResticFault;
use super::messages::Lock;
use super::repository::{Call, Ear, Repository};

/// A lock that vanished is looked for by restic for a minute; that is longer than it is worth.
const READ_DEADLINE: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Keeps one operation's repository free of the locks of dead processes. It knows what this process did about them.
#[derive(Debug, Default)]
pub(in super::super) struct Sweep(AtomicBool);

impl Sweep {
    /// Before anything else is done.
    pub(in super::super) fn begin(&self, repository: &Repository, ear: &Ear<'_>) -> Result<(), ResticFault> {
        self.0.store(true, Ordering::Relaxed);
        remove_stale(repository, ear).map(drop)
    }

    /// Before a later step, which may go on with what another process began: a restic may have died with that one, and
    /// nobody who succeeds looks for its lock again.
    pub(in super::super) fn go_on(&self, repository: &Repository, ear: &Ear<'_>) -> Result<(), ResticFault> {
        match self.0.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.begin(repository, ear),
        }
    }

    /// As the last part of an undo: an operation that another process began may have lost a restic with it. A
    /// repository that does not answer must not hold up an undo; what stays then is removed by the next operation.
    pub(in super::super) fn end(&self, repository: &Repository) {
        if self.0.load(Ordering::Relaxed) {
            return;
        }
        let unlock = repository.restic.command(&["unlock".to_owned()]);
        if let Err(fault) = unlock.succeed(READ_DEADLINE) {
            tracing::debug!(fault = %Chain(&fault), "stale locks were not removed");
        }
    }
}

/// Removes what dead processes left, and says so. How many are left.
pub(in super::super) fn remove_stale(repository: &Repository, ear: &Ear<'_>) -> Result<usize, ResticFault> {
    let before = ids(repository, ear)?;
    if before.is_empty() {
        return Ok(0);
    }
    let told: Vec<_> = before.iter().map(|id| (id, read(repository, id))).collect();
    repository.run(Call::of("unlock", &["unlock"]), ear)?;
    let after = ids(repository, ear)?;
    for (id, lock) in told.iter().filter(|(id, _)| !after.contains(id)) {
        let short = id.get(..8).unwrap_or(id);
        ear.say(match lock {
            Some(lock) => format!(
                "removed the stale lock {short} of process {} on {}, of {}",
                lock.pid,
                lock.hostname,
                lock.time.get(..19).unwrap_or(&lock.time)
            ),
            None => format!("removed the stale lock {short}"),
        });
    }
    Ok(after.len())
}

/// Waits a while for the holder of a lock to end. Err when it is time to give up.
pub(super) fn wait(
    repository: &Repository,
    fault: ResticFault,
    begun: &mut Option<Instant>,
    ear: &Ear<'_>,
) -> Result<(), ResticFault> {
    let since = *begun.get_or_insert_with(|| {
        ear.say(format!(
            "{fault}; waiting for up to {}",
            hostler_common::measure::span(repository.patience.as_secs())
        ));
        Instant::now()
    });
    if since.elapsed() >= repository.patience {
        return Err(fault);
    }
    // Whether it could be removed shows when the call is made again.
    let _ = repository.run_once(Call::of("unlock", &["unlock"]), ear);
    let again = Instant::now() + ASK_EVERY.min(repository.patience);
    while Instant::now() < again {
        ear.check()?;
        // Nobody unparks this thread; an early wake-up only asks once more.
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

fn ids(repository: &Repository, ear: &Ear<'_>) -> Result<Vec<String>, ResticFault> {
    let output = repository.run(Call::of("list locks", &["list", "locks", "--no-lock"]), ear)?;
    Ok(output
        .stdout
        .lines()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
        .collect())
}

fn read(repository: &Repository, id: &str) -> Option<Lock> {
    let arguments = ["cat", "lock", id, "--no-lock"].map(str::to_owned);
    let output = repository
        .restic
        .command(&arguments)
        .succeed(READ_DEADLINE)
        .ok()?;
    serde_json::from_str(&output.stdout).ok()
}
