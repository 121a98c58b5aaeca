//! `hostler storage show`.

use clap::Args;
use hostler_common::id::PoolName;

use crate::command::Context;
use crate::failure::Failure;
use crate::output::{self, Format, pools};

/// Shows one storage pool with its devices
#[derive(Debug, Args)]
#[command(
    long_about = "\
Shows one storage pool, whole: its figures to the byte, its reserve and the smallest size that a shrink can leave, how \
data and metadata are laid out, where its backups go, the operations on it that have not ended, and its devices.

Roles of devices: `member` is part of the pool, `spare` is free for an expand, `refused` is named as a spare and not \
usable as one (PROBLEM says why), `missing` is part of the pool and gone. SHARE is how much of a device the pool may \
use: less than its capacity after a shrink.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler storage show
  hostler storage show fast
  hostler storage show fast --json | jq '.smallest_bytes'"
)]
pub(crate) struct Show {
    /// Its name [default: the default pool]
    pool: Option<PoolName>,
}

impl Show {
    /// Prints it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let list = super::pools(context).await?;
        let found = list.iter().find(|it| match &self.pool {
            Some(name) => it.name == name.as_str(),
            None => it.is_default,
        });
        let Some(it) = found else {
            return Err(Failure::NoPool {
                name: self.pool.clone(),
                known: list.into_iter().map(|it| it.name).collect(),
            });
        };
        match context.settings.output {
            Format::Table => output::print(&pools::pool(it, context.terminal)),
            Format::Json => output::print_document(it),
        }
    }
}
