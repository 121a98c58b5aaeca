//! What hostler.site.v1 takes off the list for good: translates, and notes who did it.

use hostler_common::id::{HypervisorId, PoolName};
use hostler_common::rpc::hostler::site::v1 as rpc;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::site::Site;
use super::{status, submit};
use crate::site::expunge;

pub(super) async fn hypervisor(
    site: &Site,
    request: Request<rpc::ExpungeHypervisorRequest>,
) -> Result<Response<rpc::ExpungeHypervisorResponse>, Status> {
    let by = Peer::of(&request)?.identity.to_string();
    let request = request.into_inner();
    let id: HypervisorId = request.id.parse().map_err(|error| status::of_invalid(&error))?;
    expunge::hypervisor(&site.store, &site.registry, &id)
        .await
        .map_err(|error| status::of_expunge(&error))?;
    tracing::warn!(hypervisor = %id, by, reason = submit::reason(&request.reason), "expunged");
    Ok(Response::new(rpc::ExpungeHypervisorResponse {}))
}

pub(super) async fn pool(
    site: &Site,
    request: Request<rpc::ExpungeStoragePoolRequest>,
) -> Result<Response<rpc::ExpungeStoragePoolResponse>, Status> {
    let by = Peer::of(&request)?.identity.to_string();
    let request = request.into_inner();
    let name: PoolName = request.name.parse().map_err(|error| status::of_invalid(&error))?;
    expunge::pool(&site.store, &site.registry, &name)
        .await
        .map_err(|error| status::of_expunge(&error))?;
    tracing::warn!(pool = %name, by, reason = submit::reason(&request.reason), "expunged");
    Ok(Response::new(rpc::ExpungeStoragePoolResponse {}))
}
