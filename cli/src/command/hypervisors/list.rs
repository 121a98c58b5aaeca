//! `hostler hypervisors list`.

use clap::Args;

use super::fleet;
use crate::command::Context;
use crate::connect::Coordinator;
use crate::failure::Failure;
use crate::output::view::Hypervisors;
use crate::output::{self, Format, table};

/// Lists every enrolled hypervisor
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists every enrolled hypervisor, with its last known inventory, ordered by id.

States: `in service` can be destroyed, `out of service` can be created, `unknown` is unreachable, busy or locked \
(`hostler hypervisors show ID` says which). In JSON: in_service, out_of_service, unknown; memory is in MB.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler hypervisors list
  hostler hypervisors list --output json | jq -r '.hypervisors[] | select(.state == \"out_of_service\").id'"
)]
pub(crate) struct List {}

impl List {
    /// Prints the list.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let (fleet, _) = fleet::read(&coordinator).await?;
        let list: Vec<_> = fleet.into_values().collect();
        match context.settings.output {
            Format::Table => output::print(&table::hypervisors(&list, context.terminal)),
            Format::Json => output::print_document(&Hypervisors { hypervisors: &list }),
        }
    }
}
