//! `hostler clients`.

use clap::{Args, Subcommand};
use hostler_common::rpc::hostler::site::v1::ListRevocationsRequest;
use hostler_pki::Role;

use super::{Context, revoking};
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::revocation_view::{self, Revocation, Revocations};
use crate::output::{self, Format};

/// What to do with clients.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Revoke(Revoke),
    Revoked(Revoked),
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Revoke(command) => command.run(context).await,
            Self::Revoked(command) => command.run(context).await,
        }
    }
}

/// Revokes every certificate that a client has now
#[derive(Debug, Args)]
#[command(
    long_about = "\
Revokes every certificate that a client has now, and ends its connections before it returns. Operations that it asked for go \
on. A certificate that is made for it afterwards is taken. A client that was never connected is taken for a mistake, unless \
--unknown says that it is meant.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler clients revoke operator/alice --reason \"left\"
  hostler-pki issue client operator alice"
)]
pub(crate) struct Revoke {
    /// The client, as its certificate names it: operator/alice
    #[arg(value_name = "ROLE/NAME", value_parser = client)]
    client: String,
    #[command(flatten)]
    how: revoking::How,
}

fn client(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("client/").unwrap_or(text);
    let (role, name) = text
        .split_once('/')
        .ok_or("write it as ROLE/NAME, as operator/alice")?;
    role.parse::<Role>().map_err(|error| error.to_string())?;
    match name.is_empty() || name.contains('/') {
        true => Err("write it as ROLE/NAME, as operator/alice".into()),
        false => Ok(text.to_owned()),
    }
}

impl Revoke {
    async fn run(&self, context: &Context) -> Result<(), Failure> {
        let call = Call::administer("RevokeIdentity").look_at("hostler clients revoked");
        revoking::revoke(context, call, format!("client/{}", self.client), &self.how).await
    }
}

/// Lists whose certificates were revoked, agents too
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists every identity whose certificates were revoked, clients and agents: when, by whom, and why. Certificates whose life \
begins later are taken.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler clients revoked
  hostler clients revoked --json | jq -r '.revocations[].subject'"
)]
pub(crate) struct Revoked {}

impl Revoked {
    async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let call = coordinator.answer(Call::read("ListRevocations"), async {
            let request = ListRevocationsRequest {};
            coordinator.site().list_revocations(request).await
        });
        let list = call.await?.revocations;
        let list: Vec<_> = list.into_iter().map(Revocation::from).collect();
        match context.settings.output {
            Format::Table => output::print(&revocation_view::revocations(&list, context.terminal)),
            Format::Json => output::print_document(&Revocations { revocations: &list }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_a_role_and_a_name() {
        assert_eq!(client("admin/ada").as_deref(), Ok("admin/ada"));
        assert_eq!(client("client/viewer/v").as_deref(), Ok("viewer/v"));
        for wrong in ["ada", "root/ada", "admin/", "admin/a/b", "agent/hv1"] {
            assert!(client(wrong).is_err(), "{wrong}");
        }
    }
}
