//! `hostler agents revoke`.

use clap::Args;
use hostler_common::id::HostName;

use super::administer;
use crate::command::{Context, revoking};
use crate::failure::Failure;

/// Revokes every certificate that an agent has now
#[derive(Debug, Args)]
#[command(
    long_about = "\
Revokes every certificate that the agent of a host has now, and ends its session. When this returns, the coordinator has \
heard the last of it, and refuses the next try. A step that the agent has begun there ends, and no other begins once its lease \
has run out. Its operations wait for the host, ten minutes unless configured otherwise, and then need attention; `hostler agents \
lost` releases what it held at once.

A certificate that is made afterwards is taken: the host enrols again with a new token. A host that never enrolled, has no \
token and was never connected is taken for a mistake, unless --unknown says that it is meant.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler agents revoke hv7 --reason \"disk was stolen\"
  hostler tokens create --host hv7"
)]
pub(crate) struct Revoke {
    /// The host
    host: HostName,
    #[command(flatten)]
    how: revoking::How,
}

impl Revoke {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let call = administer("RevokeIdentity");
        revoking::revoke(context, call, format!("agent/{}", self.host), &self.how).await
    }
}
