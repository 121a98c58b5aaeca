//! `hostler tokens`.

mod create;
mod list;
mod revoke;

use clap::Subcommand;

use super::Context;
use crate::connect::Call;
use crate::failure::Failure;

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(create::Create),
    List(list::List),
    Revoke(revoke::Revoke),
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Revoke(command) => command.run(context).await,
        }
    }
}

/// A call about tokens.
const fn administer(name: &'static str) -> Call {
    Call::administer(name).look_at("hostler tokens list")
}
