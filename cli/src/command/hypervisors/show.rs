//! `hostler hypervisors show`.

use clap::Args;
use hostler_common::id::HypervisorId;
use hostler_common::rpc::hostler::fleet::v1::GetHypervisorRequest;

use crate::command::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::view::Hypervisor;
use crate::output::{self, Format, sections};

/// Shows one hypervisor, whole
#[derive(Debug, Args)]
#[command(
    long_about = "\
Shows one hypervisor, whole: why its state is what it is, its inventory, GPUs, shared storage, libvirt, running \
domains, and the operations on it that have not ended.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler hypervisors show hv1
  hostler hypervisors show hv1 --output json | jq .running_domains"
)]
pub(crate) struct Show {
    /// Its id
    id: HypervisorId,
}

impl Show {
    /// Prints it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = GetHypervisorRequest {
            id: self.id.to_string(),
        };
        let call = coordinator.answer(Call::read("GetHypervisor"), async {
            coordinator.fleet().get_hypervisor(request).await
        });
        let it = Hypervisor::from(call.await?.hypervisor.unwrap_or_default());
        match context.settings.output {
            Format::Table => output::print(&sections::hypervisor(&it)),
            Format::Json => output::print_document(&it),
        }
    }
}
