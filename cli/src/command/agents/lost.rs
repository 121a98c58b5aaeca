//! `hostler agents lost`.

use clap::Args;
use hostler_common::id::HostName;
use hostler_common::rpc::hostler::site::v1::LoseAgentRequest;

use super::administer;
use crate::command::{Context, asking};
use crate::connect::Coordinator;
use crate::failure::Failure;
use crate::output::text::{escape, verb};
use crate::output::view::{Operation, Operations};
use crate::output::{self, Format};

/// Declares a dead host dead, and releases what it held
#[derive(Debug, Args)]
#[command(
    long_about = "\
Declares a host dead: every operation of it that has not ended ends as failed, and what needed attention there does not any \
more. Locks of people on what it has are theirs and stay. Its hypervisors and pools stay in the list until they are \
expunged. While its agent is connected it is refused.

Be sure that the machine is off: the coordinator cannot stop what it does without its agent. Should it come back, its agent \
hears that its operations have ended.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler agents list
  hostler agents lost hv7 --reason \"mainboard broken, scrapped\"
  hostler hypervisors expunge hv7"
)]
pub(crate) struct Lost {
    /// The host
    host: HostName,
    /// Why, for the record; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = asking::why)]
    reason: String,
}

impl Lost {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = LoseAgentRequest {
            host: self.host.to_string(),
            reason: self.reason.clone(),
        };
        let call = coordinator.answer(administer("LoseAgent"), async {
            coordinator.site().lose_agent(request).await
        });
        let ended = call.await?.operations;
        let ended: Vec<_> = ended.into_iter().map(Operation::listed).collect();
        if context.settings.output == Format::Json {
            return output::print_document(&Operations { operations: &ended });
        }
        let mut lines = vec![match ended.len() {
            0 => format!("host {} is declared lost; it held nothing", self.host),
            1 => format!("host {} is declared lost; 1 operation has ended:", self.host),
            many => format!(
                "host {} is declared lost; {many} operations have ended:",
                self.host
            ),
        }];
        lines.extend(ended.iter().map(|it| {
            format!(
                "  {}  {} {}",
                escape(&it.id),
                verb(&it.kind),
                escape(&it.resource)
            )
        }));
        output::print(&lines.join("\n"))
    }
}
