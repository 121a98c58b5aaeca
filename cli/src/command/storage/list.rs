//! `hostler storage list`.

use clap::Args;

use crate::command::Context;
use crate::failure::Failure;
use crate::output::storage_view::Pools;
use crate::output::{self, Format, pools};

/// Lists every storage pool
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists every storage pool by name. SIZE is what a pool may use, USED what it uses, FREE the difference, SPARE what an \
expand can still add. While its host is not connected the figures are the last known ones.

States: `ready`, `busy` while an operation on it has not ended or it is locked, `unreachable` while its host is not connected, `not \
usable` for the reason in PROBLEM. In JSON: ready, busy, unreachable, not_usable; amounts are in bytes.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler storage list
  hostler storage list --json | jq -r '.pools[] | select(.state != \"ready\").problem'"
)]
pub(crate) struct List {}

impl List {
    /// Prints the list.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let list = super::pools(context).await?;
        match context.settings.output {
            Format::Table => output::print(&pools::pools(&list, context.terminal)),
            Format::Json => output::print_document(&Pools { pools: &list }),
        }
    }
}
