//! `hostler status`.

use clap::Args;
use hostler_common::rpc::hostler::site::v1::GetStatusRequest;

use super::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::status_view::{self, SiteStatus};
use crate::output::{self, Format};

/// Shows how the coordinator is, and what a person should look at
#[derive(Debug, Args)]
#[command(
    long_about = "\
Shows how the coordinator is: its version, its certificate and the CAs that it trusts, how many agents are connected, how \
many hypervisors and pools there are, and what has not ended. What a person should look at comes last, a sentence each, \
the most urgent first.

It exits with 0 when the coordinator answers, warnings or not; --json has them in `warnings`.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler status
  hostler status --json | jq -e '.warnings == []'"
)]
pub(crate) struct Show {}

impl Show {
    /// Prints it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let call = coordinator.answer(Call::read("GetStatus"), async {
            coordinator.site().get_status(GetStatusRequest {}).await
        });
        let it = SiteStatus::from(call.await?);
        match context.settings.output {
            Format::Table => output::print(&status_view::status(&it)),
            Format::Json => output::print_document(&it),
        }
    }
}
