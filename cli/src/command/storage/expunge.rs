//! `hostler storage expunge`: has the name typed.

use clap::Args;
use hostler_common::id::PoolName;
use hostler_common::rpc::hostler::site::v1::ExpungeStoragePoolRequest;

use crate::command::{Context, asking, confirming};
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::expunge_view::Expunged;
use crate::output::{self, Format};

/// Takes a storage pool off the list for good
#[derive(Debug, Args)]
#[command(
    long_about = "\
Takes a storage pool off the list for good. Nothing happens to the pool, its files or its backups. It is refused while its \
agent reports it, or an operation on it has not ended.

On a terminal the name has to be typed once more; scripts give it with --yes-expunge.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler storage expunge archive --reason \"moved to tank\"
  hostler storage expunge archive --yes-expunge archive"
)]
pub(crate) struct Expunge {
    /// Its name
    name: PoolName,
    /// Why, for the record; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = asking::reason)]
    reason: Option<String>,
    /// Do not ask; its name once more
    #[arg(long, value_name = "NAME")]
    yes_expunge: Option<String>,
}

impl Expunge {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let name = self.name.to_string();
        let question = format!("Storage pool {name} leaves the list for good. Type {name} to expunge it: ");
        confirming::typed(&question, &name, self.yes_expunge.as_deref()).await?;
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = ExpungeStoragePoolRequest {
            name: name.clone(),
            reason: self.reason.clone().unwrap_or_default(),
        };
        let call = Call::administer("ExpungeStoragePool").look_at("hostler storage list");
        let call = coordinator.answer(call, async {
            coordinator.site().expunge_storage_pool(request).await
        });
        call.await?;
        match context.settings.output {
            Format::Table => output::print(&format!("storage pool {name} is off the list")),
            Format::Json => output::print_document(&Expunged { expunged: &name }),
        }
    }
}
