//! `hostler hypervisors`.

mod change;
mod expunge;
mod fleet;
mod list;
mod show;
mod watch;

use clap::Subcommand;

use super::Context;
use crate::failure::Failure;

/// What to do with hypervisors.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Show(show::Show),
    Watch(watch::Watch),
    Create(change::Create),
    Destroy(change::Destroy),
    Expunge(expunge::Expunge),
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::Watch(command) => command.run(context).await,
            Self::Create(command) => command.run(context).await,
            Self::Destroy(command) => command.run(context).await,
            Self::Expunge(command) => command.run(context).await,
        }
    }
}
