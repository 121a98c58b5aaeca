//! Logs: to standard error, text for people or JSON lines for collectors, filtered by `HOSTLER_LOG`.

use serde::Deserialize;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::prelude::*;

/// How log lines look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// The filter's environment variable.
const VARIABLE: &str = "HOSTLER_LOG";

/// Starts logging for this process. `HOSTLER_LOG` filters as in `info,hostler_agent=debug`; the default is
/// `info`. A second call changes nothing.
pub fn start(format: LogFormat) {
    let parsed = filter(&std::env::var(VARIABLE).unwrap_or_default());
    let problem = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| usual());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let filtered = tracing_subscriber::registry().with(filter);
    // An error means that a test in this process started logging already.
    let _ = match format {
        LogFormat::Text => filtered
            .with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())))
            .try_init(),
        LogFormat::Json => filtered.with(lines.json()).try_init(),
    };
    if let Some(problem) = problem {
        tracing::warn!(
            problem,
            "{VARIABLE} is not a filter and is ignored; use info,hostler_agent=debug, say"
        );
    }
}

/// By target and level only. A filter that also looks into spans and fields needs a regular expression engine, which costs
/// each program some 300 kB.
fn filter(asked: &str) -> Result<Targets, ParseError> {
    let rules: Vec<_> = asked
        .split(',')
        .map(str::trim)
        .filter(|rule| !rule.is_empty())
        .collect();
    match rules.is_empty() {
        true => Ok(usual()),
        // An empty rule would be read as every target at every level.
        false => rules.join(",").parse(),
    }
}

fn usual() -> Targets {
    Targets::new().with_default(LevelFilter::INFO)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_names_levels_and_targets_and_nothing_asked_for_is_info() {
        for asked in ["", " ", ",", "info"] {
            let filter = filter(asked).unwrap();
            assert!(filter.would_enable("hostler_agent", &Level::INFO), "{asked:?}");
            assert!(!filter.would_enable("hostler_agent", &Level::DEBUG), "{asked:?}");
        }
        let filter = filter("warn, hostler_agent=debug,").unwrap();
        assert!(filter.would_enable("hostler_agent::session", &Level::DEBUG));
        assert!(!filter.would_enable("hostler_agent::session", &Level::TRACE));
        assert!(!filter.would_enable("h2", &Level::INFO));
    }

    #[test]
    fn what_is_no_filter_is_an_error() {
        for asked in ["hostler_agent=loud", "a=b=c"] {
            assert!(filter(asked).is_err(), "{asked}");
        }
    }
}
