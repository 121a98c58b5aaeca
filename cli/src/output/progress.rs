//! How an operation's news appear: lines on standard output, and on a terminal a spinner with the newest one, or
//! with a bar while something is measured. The spinner is on standard error. Standard output is the same record
//! either way, except that without a terminal it also says now and then how far long work is.

use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1::Measure;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::bar;
use super::pace::{Pace, Telling};
use super::{Terminal, print};
use crate::failure::Failure;

/// What the spinner, the time and the spaces between them take of a line, and a column to spare.
const BESIDE_THE_BAR: u16 = 9;

/// Where news go.
#[derive(Debug)]
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
    /// What the spinner shows now. It becomes a line when the next one comes.
    newest: Option<String>,
    pace: Pace,
    /// Columns for a bar.
    width: u16,
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
        let telling = match (terminal.spinner, terminal.width) {
            (true, Some(_)) => Telling::TheLast,
            _ => Telling::NowAndThen,
        };
        Self {
            spinner,
            newest: None,
            pace: Pace::new(telling),
            width: terminal.width.unwrap_or(80).saturating_sub(BESIDE_THE_BAR),
        }
    }

    /// Shows one line that is safe for a terminal.
    pub(crate) fn say(&mut self, line: String) -> Result<(), Failure> {
        let last = self.pace.last();
        self.keep(last)?;
        if let Some(spinner) = &self.spinner {
            spinner.set_message(line.clone());
            self.newest = Some(line);
            return Ok(());
        }
        print(&line)
    }

    /// Shows how far something is; `line` says the same as a line.
    pub(crate) fn measure(&mut self, measure: &Measure, line: String) -> Result<(), Failure> {
        let due = self.pace.lines(measure, line, Instant::now());
        // The words that the bar takes the place of, or the last of what was measured before.
        self.keep(due)?;
        if let Some(spinner) = &self.spinner {
            spinner.set_message(bar::line(measure, self.width));
        }
        Ok(())
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
        let last = self.pace.last();
        self.keep(last)
    }

    /// Prints the newest line, which nothing shows any more, and `lines` below it.
    fn keep(&mut self, lines: impl IntoIterator<Item = String>) -> Result<(), Failure> {
        for line in self.newest.take().into_iter().chain(lines) {
            match &self.spinner {
                Some(spinner) => spinner.suspend(|| print(&line))?,
                None => print(&line)?,
            }
        }
        Ok(())
    }
}
