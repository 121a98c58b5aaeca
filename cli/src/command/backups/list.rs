//! `hostler backups list`.

use clap::Args;

use crate::command::Context;
use crate::command::asking::OfPool;
use crate::failure::Failure;
use crate::output::storage_view::Backups;
use crate::output::{self, Format, pools};

/// Lists the backups of a storage pool, oldest first
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists the backups of a storage pool, oldest first, as its repository says now. SIZE is what a restore would write. \
OPERATION made it; `-` when restic was called by something else. The beginning of an id is enough to name a backup.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler backups list
  hostler backups list --pool archive
  hostler backups list --json | jq -r '.backups[-1].id'"
)]
pub(crate) struct List {
    #[command(flatten)]
    pool: OfPool,
}

impl List {
    /// Prints the list.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let (pool, backups) = super::backups(self.pool.name(), context).await?;
        match context.settings.output {
            Format::Table => output::print(&pools::backups(&pool, &backups, context.terminal)),
            Format::Json => output::print_document(&Backups {
                pool: &pool,
                backups: &backups,
            }),
        }
    }
}
