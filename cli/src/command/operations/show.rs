//! `hostler operations show`.

use clap::Args;
use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::fleet::v1::GetOperationRequest;

use crate::command::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::view::Operation;
use crate::output::{self, Format, sections};

/// Shows one operation with its log
#[derive(Debug, Args)]
#[command(
    long_about = "\
Shows one operation, whole: what it asks for, amounts too, who asked and why, how often it was tried, and its log \
with times.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler operations show 019aa111-2222-7333-8444-555566667777
  hostler operations show 019aa111-2222-7333-8444-555566667777 --output json | jq -r '.logs[].message'"
)]
pub(crate) struct Show {
    /// Its id
    id: OperationId,
}

impl Show {
    /// Prints it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = GetOperationRequest {
            id: self.id.to_string(),
        };
        let call = coordinator.answer(Call::read("GetOperation"), async {
            coordinator.fleet().get_operation(request).await
        });
        let it = Operation::whole(call.await?.operation.unwrap_or_default());
        match context.settings.output {
            Format::Table => output::print(&sections::operation(&it)),
            Format::Json => output::print_document(&it),
        }
    }
}
