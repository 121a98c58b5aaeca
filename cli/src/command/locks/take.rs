//! `hostler lock`: takes a lock, or takes one's own anew.

use std::time::Duration;

use clap::Args;
use hostler_common::id::{ProcessToken, ResourceName};
use hostler_common::operation::HOLD_SECONDS_AT_MOST;
use hostler_common::rpc::n0stack::protobuf as n0stack;

use super::{held, propose, token};
use crate::command::{Context, asking};
use crate::connect::Coordinator;
use crate::failure::Failure;
use crate::output::lock_view::Lock;
use crate::output::text::escape;
use crate::output::{self, Format};

/// Locks a hypervisor or a pool, so that operations on it wait
#[derive(Debug, Args)]
#[command(
    long_about = "\
Locks a hypervisor or a storage pool for a while: operations on it wait, also those of IsardVDI, and the list shows a \
hypervisor as unknown, with who has locked it, until when and why. Nothing is stopped: while an operation on it runs or \
waits, the lock is refused.

The lock ends by itself at its time, counted on the coordinator's own clock, or with `hostler unlock`. Locking what you \
have locked yourself sets its time anew, from now. The longest is 7 days.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler lock hv1 --for 30m --reason \"disk swap\"
  hostler lock default --for 2h --reason \"new shelf\"
  hostler unlock hv1"
)]
pub(crate) struct Take {
    /// The hypervisor or pool
    resource: ResourceName,
    /// For how long, as 30m, 2h or 1day
    #[arg(long = "for", value_name = "DURATION", value_parser = seconds)]
    lasts: u32,
    /// Why, for whoever finds it locked; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = why)]
    reason: String,
}

/// Whole seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30m or 2h"))?;
    match u32::try_from(duration.as_secs()) {
        Ok(0) => Err("must be a second at least".into()),
        Ok(seconds) if seconds <= HOLD_SECONDS_AT_MOST => Ok(seconds),
        _ => {
            let longest = Duration::from_secs(HOLD_SECONDS_AT_MOST.into());
            Err(format!("must be at most {}", humantime::format_duration(longest)))
        }
    }
}

fn why(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why: others read it when they find it locked".into()),
        text => asking::reason(text),
    }
}

impl Take {
    /// Takes it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let locks = held(&coordinator, Some(&self.resource)).await?;
        let own = locks
            .iter()
            .find(|lock| lock.requested_by == coordinator.identity());
        let proposal = n0stack::ProposeOperationRequest {
            name: self.resource.to_string(),
            lock_for_seconds: self.lasts,
            proposing_peer_token: own.map_or_else(|| ProcessToken::generate().to_string(), token),
            ..Default::default()
        };
        let lock = Lock::from(propose(&coordinator, proposal, self.reason.clone()).await?);
        match context.settings.output {
            Format::Json => output::print_document(&lock),
            Format::Table => output::print(&format!(
                "{} is locked until {} (operation {})\nunlock it with: hostler unlock {}",
                escape(&lock.resource),
                lock.until.as_deref().unwrap_or("-"),
                escape(&lock.operation_id),
                self.resource
            )),
        }
    }
}
