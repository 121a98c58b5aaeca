//! The hosts of hostler.site.v1, and the status of the whole: translates, and says who declared a host lost.

use hostler_common::id::HostName;
use hostler_common::rpc::hostler::site::v1 as rpc;
use hostler_common::units::UnixMillis;
use hostler_pki::Subject;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::site::Site;
use super::{status, submit};
use crate::operation::record::Include;
use crate::site::agents::CertificateOf;
use crate::site::lose::Declared;
use crate::site::status::Own;

pub(super) async fn status(
    site: &Site,
    _request: Request<rpc::GetStatusRequest>,
) -> Result<Response<rpc::GetStatusResponse>, Status> {
    let mut own = match site.identities.own() {
        Some(own) => Own {
            name: own.identity().subject.name().to_string(),
            not_after: Some(own.not_after()),
            cas: site.identities.cas(),
            warnings: own.warnings(UnixMillis::now()),
        },
        None => Own::default(),
    };
    own.warnings.splice(0..0, site.store.trouble().await);
    own.warnings.extend(site.identities.left_behind());
    own.warnings.extend(site.audit.trouble());
    own.warnings.extend(site.sessions.rivals());
    let is_barred = |host: &HostName| site.identities.barred(host).is_some();
    let answer = crate::site::status::status(&site.registry, site.started_at, own, is_barred);
    Ok(Response::new(answer))
}

pub(super) fn list(
    site: &Site,
    _request: Request<rpc::ListAgentsRequest>,
) -> Result<Response<rpc::ListAgentsResponse>, Status> {
    let own = site.identities.own();
    let certificate = |host: &HostName| {
        let subject = Subject::Agent { host: host.clone() };
        let session = site.sessions.of(host);
        let of_session = session.and_then(|session| session.life_end.not_after());
        let newest = site.identities.known.newest(&subject);
        CertificateOf {
            not_after: of_session.or(newest.as_ref().map(|newest| newest.not_after)),
            ca: newest
                .zip(own.as_ref())
                .map(|(newest, own)| own.ca_name(newest.root)),
            revoked_at: site.identities.revocations.last(&subject),
        }
    };
    let agents = crate::site::agents::list(&site.registry, &site.sessions, certificate);
    Ok(Response::new(rpc::ListAgentsResponse { agents }))
}

pub(super) async fn lose(
    site: &Site,
    request: Request<rpc::LoseAgentRequest>,
) -> Result<Response<rpc::LoseAgentResponse>, Status> {
    let by = Peer::of(&request)?.identity.to_string();
    let request = request.into_inner();
    let host: HostName = request.host.parse().map_err(|error| status::of_invalid(&error))?;
    let reason = submit::reason(&request.reason);
    if reason.trim().is_empty() {
        return Err(Status::invalid_argument(
            "say why the host is declared lost: the reason is empty",
        ));
    }
    let declared = Declared {
        by: &by,
        reason: &reason,
    };
    let ended = crate::site::lose::lose(&site.engine, &site.registry, &site.sessions, &host, &declared)
        .await
        .map_err(|error| status::of_lose(&error))?;
    tracing::warn!(%host, by, reason, ended = ended.len(), "declared lost");
    let operations = ended
        .iter()
        .map(|record| record.to_rpc(Include::Summary))
        .collect();
    Ok(Response::new(rpc::LoseAgentResponse { operations }))
}
