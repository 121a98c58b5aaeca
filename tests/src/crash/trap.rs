//! The named points of one program, from outside: which it passed, and the one at which it is to be killed.
//!
//! It needs programs that were built with `--features failpoints`. The invariant: a trap that fell does not fall again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use hostler_common::failpoint;

/// Where a program notes its points, and where a test arms one.
#[derive(Debug, Clone)]
pub struct Trap {
    folder: PathBuf,
}

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
}

impl Trap {
    /// In a folder of its own.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn make(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder");
        Self { folder }
    }

    /// Lets a program that is started with `command` have its points here.
    pub fn under<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(failpoint::VARIABLE, &self.folder)
    }

    /// At the `nth` passing of `point` from now on, this happens.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn arm(&self, point: &str, nth: u64, action: Action) {
        self.disarm();
        let action = match action {
            Action::Kill => "kill",
            Action::Stop => "stop",
        };
        let fresh = self.folder.join("fresh");
        std::fs::write(&fresh, format!("{point} {nth} {action}\n")).expect("it is written");
        // The program never reads half a line.
        std::fs::rename(fresh, self.folder.join("armed")).expect("it is in place");
    }

    /// Nothing happens any more.
    pub fn disarm(&self) {
        for name in ["armed", "fired"] {
            // It may not be there.
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }

    /// Whether it happened.
    pub fn fell(&self) -> bool {
        self.folder.join("fired").exists()
    }

    /// Whether it is still to happen.
    pub fn is_armed(&self) -> bool {
        self.folder.join("armed").exists()
    }

    /// How often each point was passed since [`Trap::forget`].
    pub fn passed(&self) -> BTreeMap<String, u64> {
        let noted = std::fs::read_to_string(self.folder.join("passed")).unwrap_or_default();
        let mut passed = BTreeMap::new();
        for point in noted.lines() {
            *passed.entry(point.to_owned()).or_default() += 1;
        }
        passed
    }

    /// Counts from here.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.folder.join("passed"));
    }
}
