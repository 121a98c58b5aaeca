//! `hostler audit`: what was changed and what was refused, oldest first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use hostler_common::rpc::hostler::site::v1::ListAuditRequest;
use hostler_common::units::UnixMillis;

use super::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::audit_view;
use crate::output::text::escape_json;
use crate::output::{self, Format};

/// Shows what was changed and what was refused: who, from where, when
#[derive(Debug, Args)]
#[command(
    long_about = "\
Shows the audit log of the coordinator, oldest first: every call that changes something and every refusal, with who it was, \
from where, what was asked for, and what came of it. A storm of refusals is one line with their number. Secrets are not \
in it. The log is bounded: the oldest go.

With --json each line is an object as it is in the log.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler audit --since 1h
  hostler audit --since 2026-11-20T00:00:00Z --until 2026-11-21T00:00:00Z --limit 100000
  hostler audit --identity operator/alice
  hostler audit --follow
  hostler audit --json | jq -r 'select(.code != \"OK\") | [.time, .identity, .rpc, .message] | @tsv'"
)]
pub(crate) struct Audit {
    /// Only what happened since then: so long ago, as 1h or 7days, or at a time, as 2026-11-22T07:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<UnixMillis>,
    /// Only what happened before then
    #[arg(long, value_name = "WHEN", value_parser = moment, conflicts_with = "follow")]
    until: Option<UnixMillis>,
    /// Only of identities that hold this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    identity: String,
    /// At most this many, the newest
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Also show what happens from now on, until it is interrupted or --timeout has passed
    #[arg(long, short)]
    follow: bool,
}

fn moment(text: &str) -> Result<UnixMillis, String> {
    let since_1970 = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(UnixMillis(UnixMillis::now().0.saturating_sub(millis(ago))));
    }
    let at = humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; write it as 1h or 7days, or as 2026-11-22T07:00:00Z"))?;
    Ok(UnixMillis(millis(since_1970(at))))
}

const CALL: Call = Call::administer("ListAudit");

impl Audit {
    /// Prints it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let reading = self.read(context);
        match context.settings.timeout {
            // Cancel-safe: a line is printed whole between two awaits.
            Some(limit) if self.follow => tokio::time::timeout(limit, reading).await.unwrap_or(Ok(())),
            _ => reading.await,
        }
    }

    async fn read(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = ListAuditRequest {
            since: self.since.map(Into::into),
            until: self.until.map(Into::into),
            identity: self.identity.clone(),
            at_most: self.limit,
            follow: self.follow,
        };
        let mut stream = coordinator
            .answer(CALL, async { coordinator.site().list_audit(request).await })
            .await?;
        let mut shown = 0;
        loop {
            let part = stream.message().await;
            let Some(part) = part.map_err(|status| coordinator.failed(CALL, status))? else {
                break;
            };
            shown += part.lines.len();
            for line in part.lines {
                output::print(&match context.settings.output {
                    Format::Json => escape_json(&line),
                    Format::Table => audit_view::words(&line),
                })?;
            }
        }
        if !self.follow && usize::try_from(self.limit).is_ok_and(|limit| shown >= limit) {
            output::note(&format!(
                "these are the newest {shown}, and there may be older ones; --limit shows more"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_so_long_ago_or_a_time_in_utc() {
        let at = UnixMillis(1_795_300_000_000);
        assert_eq!(moment("2026-11-21T22:26:40Z"), Ok(at));
        assert_eq!(moment("2026-11-21 22:26:40"), Ok(at));
        let ago = moment("1h").unwrap();
        assert!(ago < UnixMillis::now() && ago > at);
        assert!(moment("yesterday").is_err());
    }
}
