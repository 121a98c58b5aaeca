//! Waiting for its turn: a btrfs does one of its large changes at a time, and people start some too.
//!
//! It never stops what it did not start. The invariant: nobody waits without saying for what, nor for ever.

use std::time::{Duration, Instant};

use hostler_common::error::Retry;

use super::figures::{Exclusive, Sysfs};
use super::{Btrfs, cannot_tell};
use crate::executor::step::{Progress, StepError};

/// How often a running change is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Exclusive {
    /// For people.
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Nothing => "nothing",
            Self::Remove => "device remove",
            Self::Resize => "resize",
            Self::Other(other) => other,
        }
    }
}

impl Btrfs {
    /// Waits until nothing large runs on the pool, as long as its patience lasts.
    pub(super) fn wait_for_turn(&self, sysfs: &Sysfs, progress: &Progress) -> Result<(), StepError> {
        let begun = Instant::now();
        let mut said: Option<Exclusive> = None;
        loop {
            let running = sysfs.exclusive().map_err(cannot_tell)?;
            if running == Exclusive::Nothing {
                return Ok(());
            }
            progress.check_cancelled()?;
            let (pool, words) = (&self.settings.pool, running.words());
            if begun.elapsed() >= self.patience {
                return Err(StepError::message(
                    format!(
                        "pool {pool} is busy: \"{words}\" has been running on it for {} s and nothing else may; \
                         try again when it has ended{}",
                        self.patience.as_secs(),
                        way_out(&running, &self.settings.path.display().to_string())
                    ),
                    Retry::Never,
                ));
            }
            if said.as_ref() != Some(&running) {
                progress.say(format!("waiting: \"{words}\" runs on pool {pool}"));
                said = Some(running);
            }
            pause();
        }
    }
}

fn way_out(running: &Exclusive, path: &str) -> String {
    match running {
        Exclusive::Other(other) if other == "balance paused" => {
            format!("; `btrfs balance resume {path}` or `btrfs balance cancel {path}` ends it")
        }
        _ => String::new(),
    }
}

/// Nobody unparks this thread; an early wake-up only looks once more.
pub(super) fn pause() {
    std::thread::park_timeout(LOOK_EVERY);
}
