//! Why there are no backups, and why a call of restic failed: a sentence that names the thing and the way out.
//!
//! restic 0.14 tells its reasons apart only in words. What is not known here keeps restic's own last words.

use std::path::PathBuf;
use std::time::Duration;

use hostler_common::error::{Retry, excerpt};
use hostler_common::measure::span;
use thiserror::Error;

use crate::command::{CommandFault, Output};
use crate::executor::step::StepError;

/// What restic says when it saved a backup without some of the files.
const SOME_UNREADABLE: i32 = 3;
/// What it says when it could not get at the repository; a check then finds errors that are none.
const NO_WAY: [&str; 7] = [
    "connection refused",
    "connection reset",
    "no such host",
    "i/o timeout",
    "network is unreachable",
    "no route to host",
    "unable to open repo",
];
/// What it says of data that is there and wrong.
const ROTTEN: [&str; 5] = [
    "ciphertext verification failed",
    "invalid data returned",
    "config file has zero size",
    "Pack ID does not match",
    "hash does not match",
];
/// Lines of its last words that are passed on.
const LINES: usize = 3;

/// Why this host cannot make backups at all. Found when the agent starts.
#[derive(Debug, Error)]
pub enum BackupsFault {
    /// It is not installed.
    #[error("backups need restic; install it, as by `apt install restic`")]
    NoRestic {
        /// Where it was looked for.
        #[source]
        source: CommandFault,
    },
    /// util-linux's setpriv, which binds restic's life to the agent's, is missing.
    #[error("backups need setpriv; install it, as by `apt install util-linux`")]
    NoSetpriv {
        /// Where it was looked for.
        #[source]
        source: CommandFault,
    },
    /// It does not even tell its version.
    #[error("restic does not tell its version")]
    NoVersion {
        /// Why.
        #[source]
        source: CommandFault,
    },
    /// It is too old, or something else.
    #[error("restic 0.14 or newer is needed, and this one says {said:?}; install a newer one")]
    OldRestic {
        /// What it said.
        said: String,
    },
    /// There is no place for its cache.
    #[error("restic's cache {} cannot be made", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A variable that would change what the agent relies on.
    #[error("the environment of restic sets {name:?}, which the agent sets itself; use the settings for it")]
    Variable {
        /// Its name.
        name: String,
    },
}

/// Why a call of restic did not do its work.
#[derive(Debug, Error)]
pub(in super::super) enum ResticFault {
    #[error("restic did not run to its end")]
    Program {
        #[source]
        source: CommandFault,
    },
    #[error(
        "there is no restic repository at {repository}: mount the disk that it is on, or make a new one by `restic -r {repository} init`"
    )]
    Missing { repository: String },
    #[error("the password in {} is not that of the repository {repository}", file.display())]
    Password { repository: String, file: PathBuf },
    #[error("the password file {} cannot be used: {said}", file.display())]
    PasswordFile { file: PathBuf, said: String },
    #[error("the repository {repository} cannot be reached: {said}")]
    Unreachable { repository: String, said: String },
    #[error("the repository {repository} did not answer within {}", span(within.as_secs()))]
    Silent { repository: String, within: Duration },
    #[error(
        "the place of the repository {repository} is full: make room there, or keep fewer backups and delete some"
    )]
    Full { repository: String },
    #[error(
        "the repository {repository} is locked by {holder}: wait for it; if it does not live any more, run `restic -r {repository} unlock`"
    )]
    Locked { repository: String, holder: String },
    #[error("some files could not be read: {said}")]
    Unreadable { said: String },
    #[error("there is nothing in it")]
    Empty,
    #[error(
        "the repository {repository} is damaged, so that older backups may be damaged too: {said}; check the disk that it is on, see the whole damage by `restic -r {repository} check --read-data`, and keep every copy of the files until a backup is good again"
    )]
    Damaged { repository: String, said: String },
    #[error(
        "a snapshot in the repository {repository} is damaged: {said}; the pool's newest backups that can be read and restored by id are: {}; see the damage by `restic -r {repository} check`", left.join(", ")
    )]
    PassedOver {
        repository: String,
        said: String,
        left: Vec<String>,
    },
    #[error("restic {what} failed: {said}")]
    Failed { what: &'static str, said: String },
    #[error("restic {what} answered something that is not understood")]
    Answer {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Stopped(StepError),
}

impl ResticFault {
    pub(in super::super) fn retry(&self) -> Retry {
        match self {
            Self::Program { source } => source.retry(),
            Self::Unreachable { .. } => Retry::Later,
            Self::Missing { .. }
            | Self::Silent { .. }
            | Self::Password { .. }
            | Self::PasswordFile { .. }
            | Self::Full { .. }
            | Self::Locked { .. }
            | Self::Unreadable { .. }
            | Self::Empty
            | Self::Damaged { .. }
            | Self::PassedOver { .. }
            | Self::Failed { .. }
            | Self::Answer { .. }
            | Self::Stopped(_) => Retry::Never,
        }
    }
}

impl From<ResticFault> for StepError {
    fn from(fault: ResticFault) -> Self {
        match fault {
            ResticFault::Stopped(error) => error,
            fault => Self::new(&fault, fault.retry()),
        }
    }
}

/// Where a fault happened, for its sentence.
pub(in super::super) struct Place<'a> {
    pub(in super::super) repository: &'a str,
    pub(in super::super) password_file: &'a PathBuf,
    pub(in super::super) what: &'static str,
}

impl Place<'_> {
    /// What the end of a call means that was not good.
    pub(in super::super) fn fault(&self, output: &Output) -> ResticFault {
        let repository = self.repository.to_owned();
        let stderr = &output.stderr;
        let has = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
        let said = last_words(stderr).unwrap_or_else(|| output.status.to_string());
        if let Some(holder) = holder(stderr) {
            ResticFault::Locked { repository, holder }
        } else if has(&["wrong password or no key found"]) {
            let file = self.password_file.clone();
            ResticFault::Password { repository, file }
        } else if has(&["Resolving password failed", "an empty password is not a password"]) {
            let file = self.password_file.clone();
            ResticFault::PasswordFile { file, said }
        } else if has(&["no space left on device", "disk quota exceeded"]) && self.what != "restore" {
            ResticFault::Full { repository }
        } else if has(&["snapshot is empty"]) {
            ResticFault::Empty
        } else if has(&ROTTEN) || has(&["repository contains errors"]) && !has(&NO_WAY) {
            ResticFault::Damaged { repository, said }
        } else if has(&["unable to open config file"]) {
            match has(&[
                "no such file",
                "does not exist",
                "not a directory",
                "NoSuchKey",
                "404",
            ]) {
                true => ResticFault::Missing { repository },
                false => ResticFault::Unreachable { repository, said },
            }
        } else if has(&NO_WAY) {
            ResticFault::Unreachable { repository, said }
        } else if output.status.code() == Some(SOME_UNREADABLE) {
            ResticFault::Unreadable { said }
        } else {
            ResticFault::Failed {
                what: self.what,
                said,
            }
        }
    }
}

/// The snapshots that `restic snapshots` passed over, since they are damaged. It ends well all the same.
pub(in super::super) fn passed_over(stderr: &str) -> Option<String> {
    let damaged = |line: &&str| {
        line.starts_with("could not load snapshot") && ROTTEN.iter().any(|word| line.contains(word))
    };
    let lines: Vec<_> = stderr.lines().filter(damaged).take(LINES).collect();
    (!lines.is_empty()).then(|| excerpt(&lines.join("; ")).into_owned())
}

/// The lines that say something, without restic's accounts of its own retries and its empty ends.
fn last_words(stderr: &str) -> Option<String> {
    let mut lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        // Where in its own code it failed follows some of its errors.
        .take_while(|line| *line != "main.open" && !line.starts_with("github.com/restic/"))
        .filter(|line| !line.is_empty() && !line.contains("returned error, retrying after"))
        .filter(|line| {
            !line.starts_with("Is there a repository at") && *line != "Fatal: repository contains errors"
        })
        .collect();
    lines.dedup();
    let first = lines
        .iter()
        .take(LINES)
        .map(|line| line.trim_start_matches("Fatal: "));
    let said = first.collect::<Vec<_>>().join("; ");
    let said = match lines.len().saturating_sub(LINES) {
        0 => said,
        more => format!("{said}; and {more} more lines"),
    };
    (!said.is_empty()).then(|| said.chars().take(800).collect())
}

/// From `repository is already locked exclusively by PID 7 on host by root (UID 0, GID 0)` and the line after it.
fn holder(stderr: &str) -> Option<String> {
    let (_, after) = stderr.split_once("repository is already locked")?;
    let mut lines = after.lines();
    let who = lines
        .next()?
        .split_once("by ")
        .map_or("another restic", |(_, who)| who);
    let since = lines
        .next()
        .and_then(|line| line.strip_prefix("lock was created at "));
    let holder = match since {
        Some(since) => format!("{who} since {since}"),
        None => who.to_owned(),
    };
    Some(excerpt(&holder).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn fault(what: &'static str, status: i32, stderr: &str) -> String {
        let file = PathBuf::from("/etc/pw");
        let place = Place {
            repository: "/srv/r",
            password_file: &file,
            what,
        };
        let output = Output {
            status: ExitStatus::from_raw(status << 8),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        place.fault(&output).to_string()
    }

    #[test]
    fn what_restic_says_becomes_a_sentence_with_the_way_out() {
        let locked = "unable to create lock in backend: repository is already locked exclusively by PID 27932 on vm by root (UID 0, GID 0)\n\
            lock was created at 2026-11-22 01:55:39 (2.75617223s ago)\nstorage ID a17736ff\n\
            the `unlock` command can be used to remove stale locks\n";
        for (status, stderr, part) in [
            (
                1,
                locked,
                "locked by PID 27932 on vm by root (UID 0, GID 0) since 2026-11-22 01:55:39 (2.7",
            ),
            (
                1,
                "Fatal: wrong password or no key found\n",
                "the password in /etc/pw is not that of",
            ),
            (
                1,
                "Resolving password failed: Fatal: /etc/pw does not exist\n",
                "the password file /etc/pw cannot be used",
            ),
            (
                1,
                "Fatal: unable to open config file: stat /srv/r/config: no such file or directory\nIs there a repository at the following location?\n/srv/r\n",
                "`restic -r /srv/r init`",
            ),
            (
                1,
                "Fatal: unable to open config file: client.Head: Head \"http://u:***@h/\": dial tcp 127.0.0.1:1: connect: connection refused\n",
                "cannot be reached",
            ),
            (
                1,
                "Fatal: unable to save snapshot: write /x/data/3c/a-tmp-33: no space left on device\n",
                "is full",
            ),
            (
                1,
                "Fatal: unable to save snapshot: snapshot is empty\n",
                "there is nothing in it",
            ),
            (1, "something else\n", "restic backup failed: something else"),
            (9, "", "restic backup failed: exit status: 9"),
        ] {
            let text = fault("backup", status, stderr);
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_damaged_index_and_configuration_are_damage_and_no_code_of_restic_is_shown() {
        let index = "error: error loading index 033b: load <index/033b>: invalid data returned\nFatal: LoadIndex returned errors\n";
        assert!(fault("check", 1, index).contains("is damaged"));
        let config = "config file has zero size, invalid repository?\nmain.open\n\tgithub.com/restic/restic/cmd/restic/global.go:760\n";
        let text = fault("list locks", 1, config);
        assert!(
            text.contains("damaged too: config file has zero size, invalid repository?; check the disk"),
            "{text}"
        );
    }

    #[test]
    fn damage_is_told_with_its_first_lines_and_without_the_retries() {
        let text = fault(
            "check",
            1,
            "Load(<data/a4>, 0, 0) returned error, retrying after 552ms: open: no such file\n\
             pack a4b1: does not exist\nerror for tree 6db2494d:\n  decrypting blob 6db failed\n  another\nFatal: repository contains errors\n",
        );
        let lost = "Load(<data/a4>, 0, 0) returned error, retrying after 1s: dial tcp: connection refused\n\
            error for tree 6db2494d:\nFatal: repository contains errors\n";
        assert!(fault("check", 1, lost).contains("cannot be reached"));
        let part = "older backups may be damaged too: pack a4b1: does not exist; error for tree 6db2494d:; decrypting blob 6db failed; and 1 more lines; check";
        assert!(text.contains(part), "{text}");
    }
}
