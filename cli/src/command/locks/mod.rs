//! `hostler lock`, `unlock`, `locks`: a person keeps operations away from a hypervisor or a pool. A lock is an
//! operation of its own kind, so that what holds a resource is found in the list of those that have not ended.

pub(crate) mod list;
pub(crate) mod take;
pub(crate) mod unlock;

use hostler_common::id::ResourceName;
use hostler_common::operation::Purpose;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::n0stack::protobuf as n0stack;

use crate::connect::{Call, Coordinator};
use crate::failure::Failure;

/// The most that the coordinator gives at once.
const PAGE: u32 = 1000;

/// Locks that clients hold, on one resource or on all, by resource.
async fn held(
    coordinator: &Coordinator,
    resource: Option<&ResourceName>,
) -> Result<Vec<fleet::Operation>, Failure> {
    let mut locks = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = fleet::ListOperationsRequest {
            page_size: PAGE,
            page_token,
            resource: resource.map(ToString::to_string).unwrap_or_default(),
            unended: true,
        };
        let page = coordinator
            .answer(Call::read("ListOperations"), async {
                coordinator.fleet().list_operations(request).await
            })
            .await?;
        let operations = page.operations.into_iter();
        locks.extend(operations.filter(|it| it.kind == Purpose::HOLD.name()));
        if page.next_page_token.is_empty() {
            locks.sort_by(|one, other| one.resource.cmp(&other.resource));
            return Ok(locks);
        }
        page_token = page.next_page_token;
    }
}

/// The token that a lock was taken with. It makes nobody its holder: the coordinator looks at the certificate too.
fn token(lock: &fleet::Operation) -> String {
    let lease = lock.lease.as_ref();
    lease
        .map(|lease| lease.proposing_peer_token.clone())
        .unwrap_or_default()
}

async fn propose(
    coordinator: &Coordinator,
    proposal: n0stack::ProposeOperationRequest,
    reason: String,
) -> Result<fleet::Operation, Failure> {
    let request = fleet::ProposeOperationRequest {
        proposal: Some(proposal),
        reason,
    };
    let call = coordinator.answer(Call::change("ProposeOperation"), async {
        coordinator.fleet().propose_operation(request).await
    });
    Ok(call.await?.operation.unwrap_or_default())
}
