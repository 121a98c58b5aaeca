//! `hostler backups`.

mod create;
mod delete;
mod list;
mod restore;
mod verify;

use clap::Subcommand;
use hostler_common::rpc::hostler::fleet::v1::ListBackupsRequest;

use super::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::storage_view::Backup;

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Create(create::Create),
    Verify(verify::Verify),
    Restore(restore::Restore),
    Delete(delete::Delete),
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.run(context).await,
            Self::Create(command) => command.run(context).await,
            Self::Verify(command) => command.run(context).await,
            Self::Restore(command) => command.run(context).await,
            Self::Delete(command) => command.run(context).await,
        }
    }
}

/// The pool's name and its backups, oldest first.
async fn backups(pool: String, context: &Context) -> Result<(String, Vec<Backup>), Failure> {
    let coordinator = Coordinator::connect(&context.settings).await?;
    let call = coordinator.answer(Call::read("ListBackups").about_pools(), async {
        coordinator
            .fleet()
            .list_backups(ListBackupsRequest { pool })
            .await
    });
    let answer = call.await?;
    let backups = answer.backups.into_iter().map(Backup::from).collect();
    Ok((answer.pool, backups))
}
