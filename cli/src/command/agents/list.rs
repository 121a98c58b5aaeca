//! `hostler agents list`.

use clap::Args;
use hostler_common::rpc::hostler::site::v1::ListAgentsRequest;

use crate::command::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::agent_view::{self, Agent, Agents};
use crate::output::{self, Format};

/// Lists every host that has an agent, or had one
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists every host that has an agent, or had one: whether it is connected and from where, its version, when it was last \
heard, when its certificate ends, and what it has. A host stays in the list as long as it has a hypervisor or a pool.

On a narrow terminal the columns that matter least are left out; --json and a pipe have them all.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler agents list
  hostler agents list --json | jq -r '.agents[] | select(.connected | not).host'"
)]
pub(crate) struct List {}

impl List {
    /// Prints the list.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let call = coordinator.answer(Call::read("ListAgents"), async {
            coordinator.site().list_agents(ListAgentsRequest {}).await
        });
        let agents: Vec<_> = call.await?.agents.into_iter().map(Agent::from).collect();
        match context.settings.output {
            Format::Table => output::print(&agent_view::agents(&agents, context.terminal)),
            Format::Json => output::print_document(&Agents { agents: &agents }),
        }
    }
}
