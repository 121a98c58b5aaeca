//! One change of an activation at a time, also beside what an agent began before it was killed: a command goes on then,
//! and who follows waits for its end before it looks or begins another.
//!
//! The invariant: the lock is held by `flock`, which lives as long as the command and no longer, never by the agent; and it
//! is the hypervisor's on this machine, whatever becomes of the agent's own directory meanwhile.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::id::HypervisorId;

use super::super::StepFault;
use super::super::wait::until;
use crate::command::{Command, CommandFault, Program};

const ASK_EVERY: Duration = Duration::from_millis(100);

/// The turn of an activation.
pub(super) struct Turn {
    flock: Program,
    lock: PathBuf,
}

impl Turn {
    /// Of the activation of `id`. The lock lies in `run_dir`: the directory of the agent's state may be lost or copied while
    /// a command runs.
    pub(super) fn new(run_dir: &Path, id: &HypervisorId) -> Result<Self, CommandFault> {
        Ok(Self {
            flock: Program::find("flock")?,
            lock: run_dir.join(format!("activation-{id}.lock")),
        })
    }

    /// The command, holding the turn while it runs.
    pub(super) fn taken_by(&self, command: Command) -> Command {
        command.holding(&self.lock, &self.flock)
    }

    /// Waits until nothing runs that holds the turn.
    pub(super) fn wait(&self, at_most: Duration) -> Result<(), StepFault> {
        let fault = |source| StepFault::Turn {
            lock: self.lock.clone(),
            source,
        };
        let file = self.file().map_err(fault)?;
        let free = || match file.try_lock() {
            // It goes with the file, at the end of this function.
            Ok(()) => Ok(Some(())),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(fault(source)),
        };
        match until(at_most, ASK_EVERY, free)? {
            Some(()) => Ok(()),
            None => Err(StepFault::NotReady {
                what: format!(
                    "what an agent began before it was killed did not end (`fuser {}` shows it)",
                    self.lock.display()
                ),
                waited: at_most,
                last_line: String::new(),
            }),
        }
    }

    fn file(&self) -> io::Result<File> {
        if let Some(folder) = self.lock.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).open(&self.lock)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Command {
        Program::find("sh").unwrap().command(["-c", script])
    }

    #[test]
    fn who_follows_waits_for_the_end_of_the_command_and_not_for_the_daemon_that_it_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let turn = Turn::new(folder.path(), &"hv1".parse().unwrap()).unwrap();
        turn.wait(Duration::ZERO).unwrap();
        let (go, pid) = (folder.path().join("go"), folder.path().join("pid"));
        let script = format!(
            "sleep 60 & echo $! > {}; while [ ! -e {} ]; do sleep 0.02; done",
            pid.display(),
            go.display()
        );
        let command = turn.taken_by(sh(&script));
        let log = folder.path().join("log");
        // Its end is not waited for here: whoever began it is gone.
        let running = std::thread::spawn(move || command.leave_behind(LONG, &log));
        let begun = Instant::now();
        while !pid.exists() {
            assert!(begun.elapsed() < LONG);
            std::thread::yield_now();
        }
        let busy = turn.wait(Duration::from_millis(10)).unwrap_err();
        assert!(busy.to_string().contains("before it was killed"), "{busy}");
        std::fs::write(go, "").unwrap();
        turn.wait(LONG).unwrap();
        running.join().unwrap().unwrap();
        let daemon = std::fs::read_to_string(pid).unwrap();
        sh(&format!("kill {}", daemon.trim())).succeed(LONG).unwrap();
    }
}
