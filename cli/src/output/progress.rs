//! How an operation's news appear: lines on standard output, and on a terminal a spinner with the newest one.
//! Standard output is the same record either way; the spinner is on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Terminal, print};
use crate::failure::Failure;

/// Where news go.
#[derive(Debug)]
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
    /// What the spinner shows now. It becomes a line when the next one comes.
    newest: Option<String>,
}

impl Progress {
    /// Starts the spinner, where there can be one.
    pub(crate) fn start(terminal: Terminal) -> Self {
        let spinner = terminal.spinner.then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4}  {wide_msg}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        Self {
            spinner,
            newest: None,
        }
    }

    /// Shows one line that is safe for a terminal.
    pub(crate) fn say(&mut self, line: String) -> Result<(), Failure> {
        let Some(spinner) = &self.spinner else {
            return print(&line);
        };
        spinner.set_message(line.clone());
        match self.newest.replace(line) {
            Some(finished) => spinner.suspend(|| print(&finished)),
            None => Ok(()),
        }
    }

    /// Shows a remark that is no part of the record, on standard error.
    #[expect(clippy::print_stderr, reason = "a note beside the record on standard output")]
    pub(crate) fn note(&self, words: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| eprintln!("note: {words}")),
            None => eprintln!("note: {words}"),
        }
    }

    /// Whether a spinner turns.
    pub(crate) fn is_spinning(&self) -> bool {
        self.spinner.is_some()
    }

    /// Takes the spinner away and keeps the newest line.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        match self.newest.take() {
            Some(line) => print(&line),
            None => Ok(()),
        }
    }
}
