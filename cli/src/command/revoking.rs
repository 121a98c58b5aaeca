//! What both ways to revoke certificates share.

use clap::Args;
use hostler_common::rpc::hostler::site::v1::RevokeIdentityRequest;

use super::{Context, asking};
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::revocation_view::{self, Revoked};
use crate::output::{self, Format};

/// What both take.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Why, for the record; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = asking::why)]
    reason: String,
    /// Also when nobody is known by this name, as for a certificate made by hand that was never used
    #[arg(long)]
    unknown: bool,
}

/// Revokes the certificates of `subject`, as `agent/hv1`.
pub(super) async fn revoke(context: &Context, call: Call, subject: String, how: &How) -> Result<(), Failure> {
    let coordinator = Coordinator::connect(&context.settings).await?;
    let request = RevokeIdentityRequest {
        subject,
        reason: how.reason.clone(),
        unknown: how.unknown,
    };
    let call = coordinator.answer(call, async { coordinator.site().revoke_identity(request).await });
    let it = Revoked::from(call.await?);
    match context.settings.output {
        Format::Table => output::print(&revocation_view::revoked(&it)),
        Format::Json => output::print_document(&it),
    }
}
