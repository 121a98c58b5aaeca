//! `hostler storage`.

mod expunge;
mod list;
mod resize;
mod show;

use clap::Subcommand;
use hostler_common::rpc::hostler::fleet::v1::ListStoragePoolsRequest;

use super::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::storage_view::Pool;

/// What to do with storage pools.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(list::List),
    Show(show::Show),
    Expand(resize::Expand),
    Shrink(resize::Shrink),
    Expunge(expunge::Expunge),
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::Expand(command) => command.run(context).await,
            Self::Shrink(command) => command.run(context).await,
            Self::Expunge(command) => command.run(context).await,
        }
    }
}

/// Every pool, by name.
async fn pools(context: &Context) -> Result<Vec<Pool>, Failure> {
    let coordinator = Coordinator::connect(&context.settings).await?;
    let call = coordinator.answer(Call::read("ListStoragePools").about_pools(), async {
        coordinator
            .fleet()
            .list_storage_pools(ListStoragePoolsRequest {})
            .await
    });
    Ok(call.await?.pools.into_iter().map(Pool::from).collect())
}
