//! The commands, one a file. Each asks the coordinator and prints; none keeps anything.

mod agents;
mod asking;
mod audit;
mod backups;
mod clients;
mod completions;
mod confirming;
mod follow;
mod hypervisors;
mod locks;
mod man;
mod operations;
pub(crate) mod proxy;
mod revoking;
mod status;
mod storage;
mod tokens;

use clap::Subcommand;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output::Terminal;
use crate::settings::{self, Environment, Settings};

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists hypervisors, puts them in and out of service
    #[command(subcommand)]
    Hypervisors(hypervisors::Command),
    /// Lists storage pools, grows and shrinks them
    #[command(subcommand)]
    Storage(storage::Command),
    /// Lists backups of storage pools, makes, checks, restores and deletes them
    #[command(subcommand)]
    Backups(backups::Command),
    /// Shows what was asked of hypervisors and pools and what came of it, stops it
    #[command(subcommand)]
    Operations(operations::Command),
    Lock(locks::take::Take),
    Unlock(locks::unlock::Unlock),
    Locks(locks::list::List),
    Status(status::Show),
    /// Lists the agents of hosts, declares dead hosts dead, revokes certificates
    #[command(subcommand)]
    Agents(agents::Command),
    /// Revokes certificates of clients
    #[command(subcommand)]
    Clients(clients::Command),
    /// Makes, lists and revokes the tokens with which hosts enrol
    #[command(subcommand)]
    Tokens(tokens::Command),
    Audit(audit::Audit),
    Proxy(proxy::Proxy),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

/// What every command but `completions` and `man` needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) terminal: Terminal,
}

/// Runs what was typed.
///
/// # Errors
/// Why it was not done.
pub(crate) async fn run(arguments: Arguments, environment: &Environment) -> Result<(), Failure> {
    let context = || {
        let settings = settings::load(&arguments.flags, environment)?;
        Ok::<_, Failure>(Context {
            settings,
            terminal: Terminal::detect(environment),
        })
    };
    match &arguments.command {
        Command::Hypervisors(command) => command.run(&context()?).await,
        Command::Storage(command) => command.run(&context()?).await,
        Command::Backups(command) => command.run(&context()?).await,
        Command::Operations(command) => command.run(&context()?).await,
        Command::Lock(command) => command.run(&context()?).await,
        Command::Unlock(command) => command.run(&context()?).await,
        Command::Locks(command) => command.run(&context()?).await,
        Command::Status(command) => command.run(&context()?).await,
        Command::Agents(command) => command.run(&context()?).await,
        Command::Clients(command) => command.run(&context()?).await,
        Command::Tokens(command) => command.run(&context()?).await,
        Command::Audit(command) => command.run(&context()?).await,
        Command::Proxy(command) => command.run(&context()?).await,
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}
