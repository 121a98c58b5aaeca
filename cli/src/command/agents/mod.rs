//! `hostler agents`.

mod list;
mod lost;
mod revoke;

use clap::Subcommand;

use super::Context;
use crate::connect::Call;
use crate::failure::Failure;

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Lost(lost::Lost),
    Revoke(revoke::Revoke),
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.run(context).await,
            Self::Lost(command) => command.run(context).await,
            Self::Revoke(command) => command.run(context).await,
        }
    }
}

/// An administrator's call about hosts.
const fn administer(name: &'static str) -> Call {
    Call::administer(name).look_at("hostler agents list")
}
