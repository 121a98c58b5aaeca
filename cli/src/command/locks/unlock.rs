//! `hostler unlock`: gives one's own lock back, or ends somebody else's, which the record tells apart.

use clap::Args;
use hostler_common::id::ResourceName;
use hostler_common::rpc::hostler::fleet::v1::CancelOperationRequest;
use hostler_common::rpc::n0stack::protobuf as n0stack;

use super::{held, propose, token};
use crate::command::{Context, asking};
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::lock_view::Lock;
use crate::output::text::{escape, requester};
use crate::output::{self, Format};

/// Ends a lock on a hypervisor or a pool
#[derive(Debug, Args)]
#[command(
    long_about = "\
Ends a lock on a hypervisor or a storage pool before its time: what waits goes on at once. It need not be your own; \
the record says who ended it. A program may forbid that for its locks, and the answer says until when.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler locks
  hostler unlock hv1
  hostler unlock default --reason \"ada went home\""
)]
pub(crate) struct Unlock {
    /// The hypervisor or pool
    resource: ResourceName,
    /// Why, for the record; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = asking::reason)]
    reason: Option<String>,
}

impl Unlock {
    /// Ends it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let locks = held(&coordinator, Some(&self.resource)).await?;
        let Some(lock) = locks.into_iter().next() else {
            return Err(Failure::NotLocked {
                resource: self.resource.clone(),
            });
        };
        let reason = self.reason.clone().unwrap_or_default();
        let own = lock.requested_by == coordinator.identity();
        let before = Lock::from(lock.clone());
        let ended = match own {
            true => {
                let proposal = n0stack::ProposeOperationRequest {
                    name: self.resource.to_string(),
                    proposing_peer_token: token(&lock),
                    ..Default::default()
                };
                propose(&coordinator, proposal, reason).await?
            }
            false => {
                let request = CancelOperationRequest { id: lock.id, reason };
                let call = coordinator.answer(Call::change("CancelOperation"), async {
                    coordinator.fleet().cancel_operation(request).await
                });
                call.await?.operation.unwrap_or_default()
            }
        };
        match (context.settings.output, own) {
            (Format::Json, _) => output::print_document(&Lock::from(ended)),
            (Format::Table, true) => output::print(&format!("{} is unlocked", self.resource)),
            (Format::Table, false) => output::print(&format!(
                "{} is unlocked; {} had locked it until {}: {}",
                self.resource,
                requester(&before.held_by),
                before.until.as_deref().unwrap_or("-"),
                escape(&before.reason)
            )),
        }
    }
}
