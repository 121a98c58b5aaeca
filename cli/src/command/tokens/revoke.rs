//! `hostler tokens revoke`.

use clap::Args;
use hostler_common::rpc::hostler::site::v1::RevokeTokenRequest;

use super::administer;
use crate::command::Context;
use crate::connect::Coordinator;
use crate::failure::Failure;
use crate::output::text::escape;
use crate::output::token_view::Token;
use crate::output::{self, Format};

/// Makes a token useless
#[derive(Debug, Args)]
#[command(
    long_about = "\
Makes a token useless that nobody has used. The certificate of a host that has enrolled with one is revoked with `hostler \
agents revoke`.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler tokens list
  hostler tokens revoke 3f2a9c1e"
)]
pub(crate) struct Revoke {
    /// Its id, from the list; not the token itself
    id: String,
}

impl Revoke {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = RevokeTokenRequest { id: self.id.clone() };
        let call = coordinator.answer(administer("RevokeToken"), async {
            coordinator.site().revoke_token(request).await
        });
        let it = Token::from(call.await?.token.unwrap_or_default());
        match context.settings.output {
            Format::Table => output::print(&format!(
                "token {} for host {} is of no use any more",
                escape(&it.id),
                escape(&it.host)
            )),
            Format::Json => output::print_document(&it),
        }
    }
}
