//! `hostler operations`.

mod cancel;
mod list;
mod resolve;
mod show;
mod watch;

use clap::Subcommand;

use super::Context;
use crate::failure::Failure;

/// What to do with operations.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Show(show::Show),
    Watch(watch::Watch),
    Cancel(cancel::Cancel),
    Resolve(resolve::Resolve),
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::Watch(command) => command.run(context).await,
            Self::Cancel(command) => command.run(context).await,
            Self::Resolve(command) => command.run(context).await,
        }
    }
}
