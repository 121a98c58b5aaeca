//! Why a program did not do its work, and what may be done about it. Nothing of its environment is ever in here.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use hostler_common::error::Retry;
use thiserror::Error;

use super::PATH;

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum CommandFault {
    /// It is nowhere in the usual folders.
    #[error("the program {name} is not in {PATH}; install it")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// There is nothing at its path that can be executed.
    #[error("{} cannot be executed", path.display())]
    NotExecutable {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel did not start it.
    #[error("cannot start {command}")]
    Start {
        /// The program and its arguments.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no file for what it says.
    #[error("cannot use {}, where {command} writes", path.display())]
    Log {
        /// The program and its arguments.
        command: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{command} did not end within {deadline:?} and was killed")]
    TimedOut {
        /// The program and its arguments.
        command: String,
        /// The deadline.
        deadline: Duration,
    },
    /// It ended with a failure.
    #[error("{command} ended with {status}{}", said(last_line))]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last line of its standard error.
        last_line: String,
    },
}

fn said(last_line: &str) -> String {
    if last_line.is_empty() {
        String::new()
    } else {
        format!(": {last_line}")
    }
}

impl CommandFault {
    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. } | Self::NotExecutable { .. } | Self::Failed { .. } => Retry::Never,
            Self::Start { .. } | Self::Log { .. } => Retry::Later,
            Self::TimedOut { .. } => Retry::ReadBack,
        }
    }
}
