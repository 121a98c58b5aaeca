//! Finds restic and makes its command lines.
//!
//! The invariant: neither the repository, whose address may hold a password, nor any other secret is ever an
//! argument: they go by the environment and by the password file.

use std::path::PathBuf;
use std::time::Duration;

use super::super::Settings;
use super::fault::BackupsFault;
use crate::command::{Command, Program};

/// The oldest version that is known to do what is asked of it: Debian 12's.
const OLDEST: (u32, u32) = (0, 14);
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// restic on this host, with what every call of it needs.
#[derive(Debug)]
pub(in super::super) struct Restic {
    program: Program,
    setpriv: Program,
    repository: String,
    password_file: PathBuf,
    cache_dir: PathBuf,
    environment: Vec<(String, super::super::Secret)>,
}

impl Restic {
    /// Finds it and asks for its version.
    pub(in super::super) fn find(settings: &Settings) -> Result<Self, BackupsFault> {
        let program = Program::find("restic").map_err(|source| BackupsFault::NoRestic { source })?;
        let setpriv = Program::find("setpriv").map_err(|source| BackupsFault::NoSetpriv { source })?;
        let said = program
            .command(["version"])
            .succeed(VERSION_DEADLINE)
            .map_err(|source| BackupsFault::NoVersion { source })?
            .stdout;
        match version(&said) {
            Some(version) if version >= OLDEST => Ok(Self {
                program,
                setpriv,
                repository: settings.repository.clone(),
                password_file: settings.password_file.clone(),
                cache_dir: settings.cache_dir.clone(),
                environment: settings.environment.clone(),
            }),
            _ => Err(BackupsFault::OldRestic {
                said: said.trim().chars().take(100).collect(),
            }),
        }
    }

    /// restic with `arguments` on the repository. It dies with this process, so that it never runs beside the
    /// restic of the next one.
    pub(super) fn command(&self, arguments: &[String]) -> Command {
        let common = [
            "--password-file".to_owned(),
            self.password_file.display().to_string(),
            "--cache-dir".to_owned(),
            self.cache_dir.display().to_string(),
        ];
        let command = self
            .program
            .command(common.into_iter().chain(arguments.iter().cloned()))
            .dies_with_us(&self.setpriv)
            .with_environment("RESTIC_PROGRESS_FPS", "1");
        self.environment
            .iter()
            .fold(command, |command, (key, value)| {
                command.with_environment(key, value.expose())
            })
            .with_environment("RESTIC_REPOSITORY", &self.repository)
    }
}

/// The first two numbers of `restic 0.14.0 compiled with go1.19.8 on linux/amd64`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said
        .strip_prefix("restic ")?
        .split_whitespace()
        .next()?
        .split('.');
    let mut next = || {
        let number: String = numbers.next()?.chars().take_while(char::is_ascii_digit).collect();
        number.parse().ok()
    };
    Some((next()?, next()?))
}

/// A repository's address without credentials: `rest:https://user:secret@host/` becomes `rest:https://host/`.
pub(in super::super) fn for_people(repository: &str) -> String {
    let Some((scheme, rest)) = repository.split_once("://") else {
        return repository.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((credentials, _)) => format!("{scheme}://{}", &rest[credentials.len() + 1..]),
        None => repository.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_restic_says() {
        for (said, is) in [
            (
                "restic 0.14.0 compiled with go1.19.8 on linux/amd64\n",
                Some((0, 14)),
            ),
            (
                "restic 0.16.4-dev (compiled manually) compiled with go1.22",
                Some((0, 16)),
            ),
            ("restic 1.0rc1 compiled", Some((1, 0))),
            ("rustic 0.7", None),
            ("restic", None),
            ("restic x.y", None),
        ] {
            assert_eq!(version(said), is, "{said}");
        }
    }

    #[test]
    fn an_address_for_people_holds_no_credentials() {
        for (repository, shown) in [
            ("/srv/backup", "/srv/backup"),
            ("sftp:user@host:/srv/backup", "sftp:user@host:/srv/backup"),
            (
                "rest:https://user:s3c@ret@host:8000/x@y/",
                "rest:https://host:8000/x@y/",
            ),
            ("s3:https://host/bucket", "s3:https://host/bucket"),
            ("rest:http://user@host", "rest:http://host"),
        ] {
            assert_eq!(for_people(repository), shown);
        }
    }
}
