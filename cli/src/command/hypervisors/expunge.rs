//! `hostler hypervisors expunge`: has the id typed, since a hypervisor that is not listed is taken for gone.

use clap::Args;
use hostler_common::id::HypervisorId;
use hostler_common::rpc::hostler::site::v1::ExpungeHypervisorRequest;

use crate::command::{Context, asking, confirming};
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::expunge_view::Expunged;
use crate::output::{self, Format};

/// Takes a hypervisor off the list for good
#[derive(Debug, Args)]
#[command(
    long_about = "\
Takes a hypervisor off the list for good. Clients such as IsardVDI take one that is not listed for gone, and delete the \
desktops on it. Nothing is done on its host. It is refused while its agent reports it, or an operation on it has not ended.

On a terminal the id has to be typed once more; scripts give it with --yes-expunge.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler hypervisors expunge hv7 --reason \"scrapped\"
  hostler hypervisors expunge hv7 --yes-expunge hv7

A host that is dead, with operations on it:
  hostler agents lost hv7 --reason \"mainboard broken\"
  hostler hypervisors expunge hv7"
)]
pub(crate) struct Expunge {
    /// Its id
    id: HypervisorId,
    /// Why, for the record; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = asking::reason)]
    reason: Option<String>,
    /// Do not ask; its id once more
    #[arg(long, value_name = "ID")]
    yes_expunge: Option<String>,
}

impl Expunge {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let id = self.id.to_string();
        let question = format!(
            "Hypervisor {id} leaves the list for good; clients take its desktops for gone. Type {id} to expunge it: "
        );
        confirming::typed(&question, &id, self.yes_expunge.as_deref()).await?;
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = ExpungeHypervisorRequest {
            id: id.clone(),
            reason: self.reason.clone().unwrap_or_default(),
        };
        let call = Call::administer("ExpungeHypervisor").look_at("hostler hypervisors list");
        let call = coordinator.answer(call, async {
            coordinator.site().expunge_hypervisor(request).await
        });
        call.await?;
        match context.settings.output {
            Format::Table => output::print(&format!("hypervisor {id} is off the list")),
            Format::Json => output::print_document(&Expunged { expunged: &id }),
        }
    }
}
