//! Configuration files: TOML, every unknown key refused by name.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::error::excerpt;

/// Lines that are told of what is wrong: TOML's own report has five.
const LINES_AT_MOST: usize = 6;

/// Why a configuration was not taken.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or a key is unknown, missing or of the wrong type.
    #[error("the configuration {} is not valid: {}", path.display(), told(&problem.to_string()))]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why: part of the message, so not a source.
        problem: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("the configuration {} is not valid: {}", path.display(), told(problem))]
    Value {
        /// The file.
        path: PathBuf,
        /// Which value, and what it may be.
        problem: String,
    },
}

/// A problem as far as anybody reads it: TOML shows the whole line that is wrong, however long it is.
fn told(problem: &str) -> String {
    let lines = problem.trim_end().lines().take(LINES_AT_MOST);
    lines.map(excerpt).collect::<Vec<_>>().join("\n")
}

/// Reads `path`. The type's own `deny_unknown_fields` refuses unknown keys; `check` refuses senseless values
/// with a sentence.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text, check)
}

/// The same of `text`, which `path` holds.
///
/// # Errors
/// When it is not this TOML, or `check` refuses it.
pub fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<T, ConfigError> {
    let config: T = toml::from_str(text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        problem: Box::new(source),
    })?;
    check(&config).map_err(|problem| ConfigError::Value {
        path: path.to_owned(),
        problem,
    })?;
    Ok(config)
}
