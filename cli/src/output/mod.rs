//! What reaches standard output: tables for people, JSON for programs. Everything printed passes here, so
//! that a closed pipe is one kind of failure and never a panic.

pub(crate) mod agent_view;
mod asked;
pub(crate) mod audit_view;
mod bar;
pub(crate) mod expunge_view;
pub(crate) mod lock_view;
mod pace;
pub(crate) mod pools;
mod progress;
pub(crate) mod revocation_view;
#[cfg(test)]
mod samples;
pub(crate) mod sections;
mod sheet;
pub(crate) mod status_view;
pub(crate) mod storage_view;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod token_view;
pub(crate) mod view;

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::progress::Progress;
use crate::failure::Failure;
use crate::settings::Environment;

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences, for people
    Table,
    /// JSON with stable names: one document, or one object a line where news arrive
    Json,
}

/// What the output can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Columns; `None` when standard output is no terminal: then nothing is cut off.
    pub(crate) width: Option<u16>,
    /// Whether tables may be coloured.
    pub(crate) colour: bool,
    /// Whether standard error can show a spinner.
    pub(crate) spinner: bool,
}

impl Terminal {
    /// Looks at the standard streams and at NO_COLOR and TERM.
    pub(crate) fn detect(environment: &Environment) -> Self {
        let set = |name| environment.get(name).is_some_and(|value| !value.is_empty());
        let dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: std::io::stdout().is_terminal().then(|| {
                let width = comfy_table::Table::new().width();
                // Some terminals, and programs that play one, do not say: then as wide as all once were.
                width.filter(|columns| *columns > 0).unwrap_or(80)
            }),
            colour: std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
            spinner: std::io::stderr().is_terminal() && !dumb,
        }
    }
}

/// Prints text and a line feed.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
    written
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Print { source })
}

/// Tells a person something beside the record on standard output.
#[expect(clippy::print_stderr, reason = "standard output is the record")]
pub(crate) fn note(words: &str) {
    eprintln!("note: {words}");
}

/// Prints one JSON document over many lines.
pub(crate) fn print_document(value: &impl Serialize) -> Result<(), Failure> {
    print(&text::escape_json(&json(serde_json::to_string_pretty(value))?))
}

/// Prints one JSON object on one line.
pub(crate) fn print_line(value: &impl Serialize) -> Result<(), Failure> {
    print(&text::escape_json(&json(serde_json::to_string(value))?))
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map_err(|source| Failure::Print {
        source: source.into(),
    })
}
