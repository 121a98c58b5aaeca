//! `hostler operations resolve`.

use clap::Args;
use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::fleet::v1::ResolveOperationRequest;

use crate::command::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::text::escape;
use crate::output::view::Operation;
use crate::output::{self, Format};

/// Frees a resource whose operation needs attention
#[derive(Debug, Args)]
#[command(
    long_about = "\
Declares that a person has looked at a hypervisor or pool whose operation ended with nobody knowing what is true of it, and \
frees it for new operations. Look at the host first; the note is kept with the operation.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler operations list --output json | jq -r '.operations[] | select(.needs_attention).id'
  hostler operations resolve 019aa111-2222-7333-8444-555566667777 --note \"unit restarted by hand\""
)]
pub(crate) struct Resolve {
    /// Its id
    id: OperationId,
    /// What was found and done, for the record
    #[arg(long, value_name = "TEXT")]
    note: String,
}

const RESOLVE: Call = Call::administer("ResolveOperation");

impl Resolve {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = ResolveOperationRequest {
            id: self.id.to_string(),
            note: self.note.clone(),
        };
        let call = coordinator.answer(RESOLVE, async {
            coordinator.fleet().resolve_operation(request).await
        });
        let it = Operation::whole(call.await?.operation.unwrap_or_default());
        match context.settings.output {
            Format::Table => output::print(&format!(
                "operation {} is resolved; {} is free",
                self.id,
                escape(&it.resource)
            )),
            Format::Json => output::print_document(&it),
        }
    }
}
