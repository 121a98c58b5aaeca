//! `hostler tokens list`.

use clap::Args;
use hostler_common::rpc::hostler::site::v1::ListTokensRequest;

use super::administer;
use crate::command::Context;
use crate::connect::Coordinator;
use crate::failure::Failure;
use crate::output::token_view::{self, Token, Tokens};
use crate::output::{self, Format};

/// Lists tokens, newest first
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists every token that is kept, newest first: for which host, who made it, until when it may be used, and what became of \
it. The secrets are not kept.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler tokens list
  hostler tokens list --json | jq -r '.tokens[] | select(.state == \"open\").id'"
)]
pub(crate) struct List {}

impl List {
    /// Prints the list.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let call = coordinator.answer(administer("ListTokens"), async {
            coordinator.site().list_tokens(ListTokensRequest {}).await
        });
        let tokens: Vec<_> = call.await?.tokens.into_iter().map(Token::from).collect();
        match context.settings.output {
            Format::Table => output::print(&token_view::tokens(&tokens, context.terminal)),
            Format::Json => output::print_document(&Tokens { tokens: &tokens }),
        }
    }
}
