//! The revocations of hostler.site.v1: translates, and never decides who may be revoked.

use hostler_common::rpc::hostler::site::v1 as rpc;
use hostler_pki::Identity;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::site::Site;
use super::status;
use crate::identity::Identities;
use crate::identity::revocation::{RevocationRecord, RevokeError};
use crate::operation::sentences;
use crate::site::known;

pub(super) async fn revoke(
    site: &Site,
    request: Request<rpc::RevokeIdentityRequest>,
) -> Result<Response<rpc::RevokeIdentityResponse>, Status> {
    let by = Peer::of(&request)?.identity.clone();
    let rpc::RevokeIdentityRequest {
        subject,
        reason,
        unknown,
    } = request.into_inner();
    let identity: Identity = format!("spiffe://{}/{subject}", by.trust_domain)
        .parse()
        .map_err(|_| {
            Status::invalid_argument(format!(
                "{:?} is no subject: write agent/HOST or client/ROLE/NAME",
                sentences::line(&subject)
            ))
        })?;
    let reason = sentences::line(reason.trim());
    if reason.is_empty() {
        return Err(Status::invalid_argument(
            "say why: the reason is kept with the revocation",
        ));
    }
    if !unknown {
        known::require(&site.registry, &site.identities, &identity.subject)
            .await
            .map_err(|error| status::of_unknown(&error))?;
    }
    let revocations = &site.identities.revocations;
    let revoked = revocations.revoke(&identity, &by, &reason).await;
    let revoked = revoked.map_err(|error| {
        if let RevokeError::NotGone { left, .. } = &error {
            tracing::error!(%identity, %by, ?left, "certificates are revoked, and connections by them do not end");
        }
        status::of_revoke(&error)
    })?;
    let connections = revoked.connections_ended;
    tracing::warn!(%identity, %by, reason, connections, "certificates revoked");
    Ok(Response::new(rpc::RevokeIdentityResponse {
        revocation: Some(listed(&revoked.record)),
        connections_ended: u32::try_from(connections).unwrap_or(u32::MAX),
    }))
}

pub(super) async fn list(
    identities: &Identities,
    _request: Request<rpc::ListRevocationsRequest>,
) -> Result<Response<rpc::ListRevocationsResponse>, Status> {
    let revocations = identities.revocations.all().iter().map(listed).collect();
    Ok(Response::new(rpc::ListRevocationsResponse { revocations }))
}

fn listed(record: &RevocationRecord) -> rpc::Revocation {
    rpc::Revocation {
        subject: record.identity.subject.to_string(),
        revoked_at: Some(record.revoked_at.into()),
        revoked_by: record.revoked_by.clone(),
        reason: record.reason.clone(),
    }
}
