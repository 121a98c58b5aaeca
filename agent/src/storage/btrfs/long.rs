//! Running one of the large changes of a btrfs: hours long, watched, and stopped by the kernel's own means.
//!
//! The program that asks for the change is not bound to the agent: when the agent dies the kernel goes on, and the
//! next agent follows. The invariant: after a cancel this returns only when the kernel has stopped.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use hostler_common::error::Retry;

use super::exclusive::{LOOK_EVERY, pause};
use super::figures::{Exclusive, Sysfs};
use super::{Btrfs, SOON, cannot_tell};
use crate::command::{Command, KeepGoing};
use crate::executor::step::{Progress, StepError};
use crate::storage::PoolFault;

/// No disk of today takes longer to be emptied.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// strerror(3) of ENOSPC in the C locale.
const NO_ROOM: &str = "No space left on device";

/// A large change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Large {
    Remove,
    Resize,
    Balance,
}

/// How a large change that nobody cancelled ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is made.
    Done,
    /// The kernel found no room; all is as before.
    NoRoom,
    /// Something else was faster to start.
    Busy,
    /// Somebody killed the program; the kernel stopped.
    Killed(String),
    /// With its last words.
    Failed(String),
}

impl Large {
    /// In sysfs, while it runs.
    fn shows_as(self) -> Exclusive {
        match self {
            Self::Remove => Exclusive::Remove,
            Self::Resize => Exclusive::Resize,
            Self::Balance => Exclusive::Other("balance".into()),
        }
    }

    /// The command that stops it. It waits until the kernel has stopped.
    fn cancel(self, pool: &Btrfs) -> Command {
        let path = pool.path();
        pool.btrfs.command(match self {
            Self::Remove => vec!["device", "remove", "cancel", &path],
            Self::Resize => vec!["filesystem", "resize", "cancel", &path],
            Self::Balance => vec!["balance", "cancel", &path],
        })
    }
}

impl Btrfs {
    /// Runs `arguments` of `btrfs` to the end of the change. `look` is called about every second.
    pub(super) fn run_large(
        &self,
        large: Large,
        arguments: &[&str],
        sysfs: &Sysfs,
        progress: &Progress,
        look: &mut dyn FnMut(),
    ) -> Result<Ended, StepError> {
        let mut looked = Instant::now();
        let mut cancelled = None;
        let mut keep_going = || {
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                // First, since a look may take a while.
                self.heed_cancel(large, progress, &mut cancelled);
                look();
            }
            // The kernel stops, and with it the program. A signal would say less about when.
            KeepGoing::Yes
        };
        let command = self.btrfs.command(arguments.to_vec());
        let output = command.follow(&mut |_| (), &mut keep_going, LONGEST);
        let output = output.map_err(|fault| {
            let what = format!("cannot change pool {}", self.settings.pool);
            PoolFault::caused(what, fault.retry(), fault)
        })?;
        if output.status.success() {
            return Ok(Ended::Done);
        }
        if let Some(cancelled) = cancelled {
            return Err(cancelled);
        }
        if let Some(signal) = output.status.signal() {
            return Ok(Ended::Killed(format!("{command} was killed by signal {signal}")));
        }
        if output.stderr.contains(NO_ROOM) {
            return Ok(Ended::NoRoom);
        }
        if sysfs.exclusive().map_err(cannot_tell)? != Exclusive::Nothing {
            return Ok(Ended::Busy);
        }
        let last = output.stderr.lines().rev().find(|line| !line.trim().is_empty());
        Ok(Ended::Failed(
            last.unwrap_or("it does not say why").trim().to_owned(),
        ))
    }

    /// Follows a change that runs already, to its end. A cancel stops it.
    pub(super) fn follow_large(
        &self,
        large: Large,
        sysfs: &Sysfs,
        progress: &Progress,
        look: &mut dyn FnMut(),
    ) -> Result<Followed, StepError> {
        let mut cancelled = None;
        while sysfs.exclusive().map_err(cannot_tell)? == large.shows_as() {
            self.heed_cancel(large, progress, &mut cancelled);
            look();
            pause();
        }
        Ok(Followed { cancelled })
    }

    /// Stops a change that runs, if it is of this kind, and waits until it has.
    pub(super) fn stop_large(&self, large: Large, sysfs: &Sysfs) -> Result<(), StepError> {
        let until = Instant::now() + self.patience;
        while sysfs.exclusive().map_err(cannot_tell)? == large.shows_as() {
            if Instant::now() >= until {
                let (pool, command) = (&self.settings.pool, large.cancel(self));
                let what = format!("pool {pool} does not stop what it does; `{command}` asks it to");
                return Err(StepError::message(what, Retry::ReadBack));
            }
            // It fails while the change has only just begun, or has just ended.
            let _ = large.cancel(self).run(SOON);
            pause();
        }
        Ok(())
    }

    fn heed_cancel(&self, large: Large, progress: &Progress, cancelled: &mut Option<StepError>) {
        if cancelled.is_none() {
            *cancelled = progress.check_cancelled().err();
            if cancelled.is_some() {
                progress.say(format!("stopping what runs on pool {}", self.settings.pool));
            }
        }
        if cancelled.is_some() {
            // It fails while the change has only just begun: then the next look tries again.
            let _ = large.cancel(self).run(SOON);
        }
    }
}

/// A change that was followed and runs no longer.
pub(super) struct Followed {
    /// Somebody cancelled the operation meanwhile. Whether the change was faster, the pool tells.
    pub(super) cancelled: Option<StepError>,
}
