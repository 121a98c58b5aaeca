//! Clocks that are set, or that go slow, under a running program: Debian's libfaketime, preloaded.

use std::path::PathBuf;
use std::process::Command;

/// A day, in seconds.
pub const DAY: i64 = 24 * 3600;
/// An hour, in seconds.
pub const HOUR: i64 = 3600;

/// Where Debian puts the library for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock of one machine. Programs that are started on it follow when it is set.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

/// Which clocks of a program are other than the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faked {
    /// The wall clock: somebody sets it.
    Wall,
    /// That and the monotonic clock: the oscillator is off.
    All,
}

impl Clock {
    /// Kept in `file`, and off by `seconds`.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn off_by(file: PathBuf, seconds: i64) -> Self {
        let clock = Self { file };
        clock.set(seconds);
        clock
    }

    /// From now on it is off by `seconds`.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, seconds: i64) {
        self.say(&format!("{seconds:+}"));
    }

    /// From now on it is off by `seconds` and goes at `percent` of the true rate.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn go_at(&self, seconds: i64, percent: u32) {
        self.say(&format!("{seconds:+} x{}.{:02}", percent / 100, percent % 100));
    }

    fn say(&self, what: &str) {
        // The library reads the file at each call, so it must never be half written.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, what).expect("the clock is written");
        std::fs::rename(&fresh, &self.file).expect("the clock is set");
    }

    /// Starts `command` on this clock.
    ///
    /// # Panics
    /// When the library is not installed.
    pub fn rule(&self, command: &mut Command, faked: Faked) {
        let monotonic = match faked {
            Faked::Wall => "1",
            Faked::All => "0",
        };
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", monotonic)
            .env("NO_FAKE_STAT", "1");
    }
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib");
    let found = folders
        .filter_map(|folder| Some(folder.ok()?.path().join(LIBRARY)))
        .find(|library| library.exists());
    found.expect("libfaketime is missing: deploy/packages.sh test")
}
