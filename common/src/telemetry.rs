//! Logs: to standard error, text for people or JSON lines for collectors, filtered by `HOSTLER_LOG`.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

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
    let asked = std::env::var(VARIABLE).ok();
    let parsed = asked.as_deref().map(EnvFilter::try_new);
    let problem = parsed
        .as_ref()
        .and_then(|parsed| parsed.as_ref().err().map(ToString::to_string));
    let filter = parsed
        .and_then(Result::ok)
        .unwrap_or_else(|| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // An error means that a test in this process started logging already.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Some(problem) = problem {
        tracing::warn!(
            problem,
            "{VARIABLE} is not a filter and is ignored; use info,hostler_agent=debug, say"
        );
    }
}
