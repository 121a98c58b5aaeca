//! Rows of the table of figures, and the median that they show.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::time::Duration;

/// A row with an aim. A missed aim says so.
pub(crate) fn aimed(what: &str, value: f64, at_most: f64, unit: &str) {
    let verdict = match value <= at_most {
        true => "met",
        false => "MISSED",
    };
    let value = shown(value, unit);
    println!("{what:<54}{value:>10}   (aim at most {at_most}{unit}: {verdict})");
}

/// A row with an aim that is to be reached or passed.
pub(crate) fn aimed_at_least(what: &str, value: f64, at_least: f64) {
    let verdict = match value >= at_least {
        true => "met",
        false => "MISSED",
    };
    let value = shown(value, "");
    println!("{what:<54}{value:>10}   (aim at least {at_least}: {verdict})");
}

/// A row for information.
pub(crate) fn told(what: &str, value: f64, unit: &str) {
    println!("  {what:<52}{:>10}", shown(value, unit));
}

fn shown(value: f64, unit: &str) -> String {
    format!("{value:.2}{unit}")
}

/// The middle one.
///
/// # Panics
/// When there is none.
pub(crate) fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}
