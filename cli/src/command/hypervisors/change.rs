//! `hostler hypervisors create` and `destroy`.

use std::collections::BTreeSet;

use clap::Args;
use hostler_common::id::HypervisorId;

use crate::command::Context;
use crate::command::asking::Asking;
use crate::command::follow::Asked;
use crate::failure::Failure;

/// Puts hypervisors in service
#[derive(Debug, Args)]
#[command(
    long_about = "\
Puts hypervisors in service, and shows how far it is until it has ended. The operation is the coordinator's: it goes on \
when this client is interrupted, and the same command again attaches to it. One that is in service already is done \
at once.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler hypervisors create hv1 --reason \"back from repair\"
  hostler hypervisors create hv1 hv2 hv3 --timeout 10m
  hostler hypervisors create hv1 --detach"
)]
pub(crate) struct Create {
    #[command(flatten)]
    change: Change,
}

/// Takes hypervisors out of service
#[derive(Debug, Args)]
#[command(
    long_about = "\
Takes hypervisors out of service, and shows how far it is until it has ended. Nothing is wiped. What happens to running \
domains is the host's configuration: by default it waits for them, then refuses. The operation is the \
coordinator's: it goes on when this client is interrupted, and the same command again attaches to it.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler hypervisors destroy hv1 --reason \"disk swap\"
  hostler hypervisors destroy hv1 hv2
  hostler hypervisors destroy hv1 --output json | jq -r .message"
)]
pub(crate) struct Destroy {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// Their ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<HypervisorId>,
    #[command(flatten)]
    asking: Asking,
}

impl Create {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let ids = self.change.ids()?;
        self.change
            .asking
            .run(Asked::CreateHypervisors(ids), context)
            .await
    }
}

impl Destroy {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let ids = self.change.ids()?;
        self.change
            .asking
            .run(Asked::DestroyHypervisors(ids), context)
            .await
    }
}

impl Change {
    fn ids(&self) -> Result<Vec<HypervisorId>, Failure> {
        // A mistake of typing, most likely: another id was meant.
        let mut named = BTreeSet::new();
        match self.ids.iter().find(|id| !named.insert(*id)) {
            Some(id) => Err(Failure::Twice { id: id.clone() }),
            None => Ok(self.ids.clone()),
        }
    }
}
