//! `hostler audit`: what was changed and what was refused, oldest first.

use std::time::Duration;

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
  hostler audit --identity operator/alice
  hostler audit --follow
  hostler audit --json | jq -r 'select(.code != \"OK\") | [.time, .identity, .rpc, .message] | @tsv'"
)]
pub(crate) struct Audit {
    /// Only what happened in so long, as 1h or 7days
    #[arg(long, value_name = "DURATION", value_parser = since)]
    since: Option<Duration>,
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

fn since(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 1h or 7days"))
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
            since: self.since.map(|ago| {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                UnixMillis(UnixMillis::now().0.saturating_sub(ago)).into()
            }),
            identity: self.identity.clone(),
            at_most: self.limit,
            follow: self.follow,
        };
        let mut stream = coordinator
            .answer(CALL, async { coordinator.site().list_audit(request).await })
            .await?;
        loop {
            let part = stream.message().await;
            let Some(part) = part.map_err(|status| coordinator.failed(CALL, status))? else {
                return Ok(());
            };
            for line in part.lines {
                output::print(&match context.settings.output {
                    Format::Json => escape_json(&line),
                    Format::Table => audit_view::words(&line),
                })?;
            }
        }
    }
}
