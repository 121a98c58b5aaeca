//! The audit log for who may see it: translates.

use hostler_common::rpc::hostler::site::v1 as rpc;
use hostler_common::units::UnixMillis;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

use super::progress::{Responses, cut};
use super::site::Site;
use crate::audit;

/// Lines of an answer to a request that does not say how many, and at most.
const LINES: usize = 1000;
const LINES_AT_MOST: usize = 100_000;

pub(super) async fn list(
    site: &Site,
    request: Request<rpc::ListAuditRequest>,
) -> Result<Response<Responses<rpc::ListAuditResponse>>, Status> {
    let request = request.into_inner();
    let at_most = match usize::try_from(request.at_most).unwrap_or(usize::MAX) {
        0 => LINES,
        at_most if at_most > LINES_AT_MOST => {
            return Err(Status::invalid_argument(format!(
                "at_most is {at_most}; at most {LINES_AT_MOST} are allowed"
            )));
        }
        at_most => at_most,
    };
    if request.follow && request.until.is_some() {
        return Err(Status::invalid_argument(
            "follow goes on for ever, and until says when to stop: one of them",
        ));
    }
    let asked = audit::Asked {
        since: request.since.map(UnixMillis::from),
        until: request.until.map(UnixMillis::from),
        identity: request.identity,
        at_most,
        follow: request.follow,
    };
    let parts = audit::read(&site.audit, asked)
        .await
        .map_err(|busy| Status::resource_exhausted(busy.to_string()))?;
    let parts = parts.map(|lines| Ok(rpc::ListAuditResponse { lines }));
    Ok(cut(parts, site.shutdown.clone()))
}
