//! `hostler locks`.

use clap::Args;

use super::held;
use crate::command::Context;
use crate::connect::Coordinator;
use crate::failure::Failure;
use crate::output::lock_view::{self, Lock, Locks};
use crate::output::{self, Format};

/// Lists the locks that people and programs hold
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists the locks that people and programs hold on hypervisors and storage pools: who, since when, until when, and why. \
What the agents hold while they work is in `hostler operations list --unended`.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler locks
  hostler locks --json | jq -r '.locks[] | select(.held_by | endswith(\"/ada\")).resource'"
)]
pub(crate) struct List {}

impl List {
    /// Prints the list.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let locks = held(&coordinator, None).await?;
        let locks: Vec<_> = locks.into_iter().map(Lock::from).collect();
        match context.settings.output {
            Format::Table => output::print(&lock_view::table(&locks, context.terminal)),
            Format::Json => output::print_document(&Locks { locks: &locks }),
        }
    }
}
