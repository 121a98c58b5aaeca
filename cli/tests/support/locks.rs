//! The part of locks in the coordinator that plays fixed parts: what it keeps is what was proposed.

use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::n0stack::protobuf as n0stack;
use hostler_common::rpc::operations::v1::OperationState;
use prost_types::Timestamp;
use tonic::Status;

use super::{Asked, FIRM, ID, OTHER};

/// Locked by another person, who allows it to be ended.
pub(crate) const LENT: &str = "lent";
/// Locked by a program that does not.
pub(crate) const FIRMLY: &str = "firmly";
/// Held by the caller.
pub(crate) const OWN: &str = "own";

const SINCE: i64 = 1_795_300_000;

fn lock(id: &str, resource: &str, by: &str, reason: &str) -> fleet::Operation {
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    fleet::Operation {
        id: id.into(),
        resource: resource.into(),
        kind: "ProposeOperation".into(),
        state: OperationState::Active.into(),
        requested_by: format!("spiffe://example.org/client/{by}"),
        requested: at(SINCE),
        reason: reason.into(),
        lease: Some(n0stack::Operation {
            locked_until: at(SINCE + 1800),
            is_disabled_cancel: id == FIRM,
            proposing_peer_token: "the-token".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Those that are held.
pub(crate) fn all() -> Vec<fleet::Operation> {
    vec![
        lock(OTHER, LENT, "operator/bob", "disk swap"),
        lock(FIRM, FIRMLY, "operator/firmware", "updating"),
        lock(ID, OWN, "operator/alice", "new memory"),
    ]
}

/// Why it is not ended.
pub(crate) fn firm(id: &str) -> Status {
    Status::failed_precondition(format!(
        "operation {id} was not changed: its holder does not allow it to be cancelled (it holds it until 2026-11-21T22:56:40Z)"
    ))
}

/// The answer to a proposal.
pub(crate) fn propose(
    asked: &mut Asked,
    request: fleet::ProposeOperationRequest,
) -> Result<fleet::ProposeOperationResponse, Status> {
    let proposal = request.proposal.unwrap();
    asked.proposals.push((proposal.clone(), request.reason.clone()));
    if [LENT, FIRMLY].contains(&proposal.name.as_str()) {
        return Err(Status::failed_precondition(format!(
            "{} is locked by spiffe://example.org/client/operator/bob until 2026-11-21T22:56:40Z: disk swap",
            proposal.name
        )));
    }
    if proposal.name == "nobody" {
        return Err(Status::not_found(
            "no hypervisor or storage pool is called nobody; `hostler hypervisors list` and `hostler storage list` show those that there are",
        ));
    }
    let mut operation = lock(ID, &proposal.name, "operator/alice", &request.reason);
    if proposal.lock_for_seconds == 0 {
        operation.state = OperationState::Completed.into();
        operation.lease = None;
        operation.message = "released by spiffe://example.org/client/operator/alice".into();
    }
    Ok(fleet::ProposeOperationResponse {
        operation: Some(operation),
    })
}
