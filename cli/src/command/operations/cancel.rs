//! `hostler operations cancel`: asks for the end of an operation, and follows it there.

use clap::Args;
use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::fleet::v1::{CancelOperationRequest, GetOperationRequest};

use crate::command::asking::Asking;
use crate::command::{Context, follow};
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::text::escape;
use crate::output::view::{Operation, OperationState};
use crate::output::{self, Format};

/// Stops an operation
#[derive(Debug, Args)]
#[command(
    long_about = "\
Stops an operation, and follows it until it has ended. One that waits ends at once. One that runs is stopped by its \
agent, and what is done of it is undone; that takes as long as it takes. Some cannot be stopped while they run, and say \
so: what is deleted from a repository does not come back.

The exit code is 0 when the operation was stopped, 1 when it completed before that or needs attention.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler operations list --unended
  hostler operations cancel 019aa111-2222-7333-8444-555566667777 --reason \"wrong size\"
  hostler operations cancel 019aa111-2222-7333-8444-555566667777 --detach"
)]
pub(crate) struct Cancel {
    /// Its id
    id: OperationId,
    #[command(flatten)]
    asking: Asking,
}

impl Cancel {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = CancelOperationRequest {
            id: self.id.to_string(),
            reason: self.asking.reason.clone().unwrap_or_default(),
        };
        let call = coordinator.answer(Call::change("CancelOperation"), async {
            coordinator.fleet().cancel_operation(request).await
        });
        let it = Operation::whole(call.await?.operation.unwrap_or_default());
        if self.asking.detach {
            return self.print(&it, context);
        }
        follow::stop(context, self.id).await?;
        self.look_whether_undone(&coordinator).await
    }

    fn print(&self, it: &Operation, context: &Context) -> Result<(), Failure> {
        match (context.settings.output, it.state) {
            (Format::Json, _) => output::print_document(it),
            (Format::Table, OperationState::Failed | OperationState::Completed) => {
                output::print(&format!("{}: {}", it.state.word(), escape(&it.message)))
            }
            (Format::Table, _) => output::print(&format!(
                "its agent is told to stop it; follow it with: hostler operations watch {}",
                self.id
            )),
        }
    }

    /// Stopped and undone is what was wanted; stopped and nobody knows is not.
    async fn look_whether_undone(&self, coordinator: &Coordinator) -> Result<(), Failure> {
        let request = GetOperationRequest {
            id: self.id.to_string(),
        };
        let call = coordinator.answer(Call::read("GetOperation"), async {
            coordinator.fleet().get_operation(request).await
        });
        let it = call.await?.operation.unwrap_or_default();
        match it.needs_attention {
            false => Ok(()),
            true => Err(Failure::Operation {
                what: format!("undoing operation {}", self.id),
                message: it.message,
                show: vec![self.id.to_string()],
                look: "hostler operations list",
            }),
        }
    }
}
