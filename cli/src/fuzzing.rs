//! The doors through which fuzzing reaches the command line and the settings. No shipped program has them (feature
//! `fuzzing`).
//!
//! It runs no command and reads neither files nor the environment.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser as _;
use hostler_common::config::parse;
use hostler_common::error::Chain;

use crate::arguments::{Arguments, Flags};
use crate::settings::{Environment, File, resolve};

/// Reads `words` as the command line, the program's name first.
///
/// # Errors
/// With what the user would be told.
pub fn arguments(words: &[OsString]) -> Result<(), String> {
    Arguments::try_parse_from(words)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Reads `text` as the configuration file, beside environment variables.
///
/// # Errors
/// With what the user would be told.
pub fn settings(text: &str, variables: &[(&str, OsString)]) -> Result<(), String> {
    let path = Path::new("/home/alice/.config/hostler/config.toml");
    let file: File = parse(path, text, |_| Ok(())).map_err(|error| Chain(&error).to_string())?;
    let environment: Environment = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    resolve(&Flags::default(), &environment, &file, Some(path))
        .map(drop)
        .map_err(|error| Chain(&error).to_string())
}
