//! `hostler operations watch`: the argument. What follows is `follow`'s.

use clap::Args;
use hostler_common::id::OperationId;

use crate::command::{Context, follow};
use crate::failure::Failure;

/// Follows one operation to its end
#[derive(Debug, Args)]
#[command(
    long_about = "\
Prints an operation's log so far, then each change, until it has ended. On a terminal long work has a bar with its \
rate and the time left; elsewhere a line every 10 seconds or 10 percent. A lost connection is made again by itself. \
The exit code is that of the operation: 0 when it completed, 1 when it failed.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler operations watch 019aa111-2222-7333-8444-555566667777
  hostler operations watch 019aa111-2222-7333-8444-555566667777 --timeout 5m --output json"
)]
pub(crate) struct Watch {
    /// Its id
    id: OperationId,
}

impl Watch {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        follow::watch(context, self.id).await
    }
}
