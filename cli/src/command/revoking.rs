//! What both ways to revoke certificates share.

use hostler_common::rpc::hostler::site::v1::RevokeIdentityRequest;

use super::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::revocation_view::{self, Revoked};
use crate::output::{self, Format};

/// Revokes the certificates of `subject`, as `agent/hv1`.
pub(super) async fn revoke(
    context: &Context,
    call: Call,
    subject: String,
    reason: &str,
) -> Result<(), Failure> {
    let coordinator = Coordinator::connect(&context.settings).await?;
    let request = RevokeIdentityRequest {
        subject,
        reason: reason.to_owned(),
    };
    let call = coordinator.answer(call, async { coordinator.site().revoke_identity(request).await });
    let it = Revoked::from(call.await?);
    match context.settings.output {
        Format::Table => output::print(&revocation_view::revoked(&it)),
        Format::Json => output::print_document(&it),
    }
}
