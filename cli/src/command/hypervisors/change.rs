//! `hostler hypervisors create` and `destroy`: the arguments. What follows is `follow`'s.

use std::collections::BTreeSet;

use clap::Args;
use hostler_common::id::HypervisorId;
use hostler_common::operation::OperationKind;

use crate::command::Context;
use crate::command::follow::{self, Detach, Wish};
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

/// The coordinator keeps so many characters, and HTTP/2 would not carry a novel.
const REASON_AT_MOST: usize = 500;

fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=REASON_AT_MOST => Ok(text.to_owned()),
        count => Err(format!(
            "it has {count} characters; at most {REASON_AT_MOST} are kept"
        )),
    }
}

#[derive(Debug, Args)]
struct Change {
    /// Their ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<HypervisorId>,
    /// Why, for the record; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// Return once the coordinator has accepted it
    #[arg(long)]
    detach: bool,
}

impl Create {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        self.change.run(OperationKind::CreateHypervisor, context).await
    }
}

impl Destroy {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        self.change.run(OperationKind::DestroyHypervisor, context).await
    }
}

impl Change {
    async fn run(&self, kind: OperationKind, context: &Context) -> Result<(), Failure> {
        // A mistake of typing, most likely: another id was meant.
        let mut named = BTreeSet::new();
        if let Some(id) = self.ids.iter().find(|id| !named.insert(*id)) {
            return Err(Failure::Twice { id: id.clone() });
        }
        let wish = Wish {
            kind,
            ids: self.ids.clone(),
            reason: self.reason.clone(),
        };
        let detach = if self.detach {
            Detach::OnceAccepted
        } else {
            Detach::Never
        };
        follow::change(context, wish, detach).await
    }
}
