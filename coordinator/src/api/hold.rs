//! n0stack's ProposeOperation for operators that are no agents: who proposes, about what, and the answer.

use hostler_common::id::{HostName, HypervisorId, PoolName, ResourceName};
use hostler_common::operation::{Hold, HoldWish, pack};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use tonic::{Request, Status};

use super::fleet::Fleet;
use super::{status, submit};
use crate::audit;
use crate::operation::hold::WantedHold;
use crate::operation::record::Include;

impl Fleet {
    /// Takes, renews or gives back a lock. When it returns, the list shows it.
    pub(super) async fn hold(
        &self,
        request: Request<rpc::ProposeOperationRequest>,
    ) -> Result<rpc::ProposeOperationResponse, Status> {
        let mut asker = submit::asker(&request)?;
        let rpc::ProposeOperationRequest { proposal, reason } = request.into_inner();
        if !reason.is_empty() {
            asker.reason = submit::reason(&reason);
        }
        let proposal = proposal.ok_or_else(|| Status::invalid_argument("the proposal is missing"))?;
        let received = pack(&proposal);
        submit::bounded(&received)?;
        let hold = Hold::of(&proposal).map_err(|error| status::of_invalid_hold(&error))?;
        let resource = hold.resource.clone();
        let host = self.host_of(&resource).ok_or_else(|| {
            Status::not_found(format!(
                "no hypervisor or storage pool is called {resource}; `hostler hypervisors list` and `hostler storage list` show those that there are"
            ))
        })?;
        let wish = hold.wish;
        let wanted = WantedHold { hold, received, host };
        let record = self.engine.hold(&wanted, &asker).await;
        let record = record.map_err(|error| status::of_hold(&error))?;
        // A program that holds a lock renews it all the time.
        if record.lease().is_some_and(|lease| lease.renewals > 0) {
            audit::routine();
        } else {
            audit::made(record.id);
            let (operation, by, reason) = (record.id, &asker.identity, &asker.reason);
            match wish {
                HoldWish::Have(seconds) => {
                    tracing::info!(%operation, %resource, by, reason, seconds, "locked");
                }
                HoldWish::Release => tracing::info!(%operation, %resource, by, reason, "released"),
            }
        }
        let (_, revision) = self
            .engine
            .get_at(record.id)
            .await
            .map_err(|error| status::of_engine(&error))?;
        self.registry.taken(revision).await;
        Ok(rpc::ProposeOperationResponse {
            operation: Some(record.to_rpc(Include::Logs)),
        })
    }

    fn host_of(&self, resource: &ResourceName) -> Option<HostName> {
        let hypervisor = self.registry.record(&HypervisorId::from(resource));
        let host = hypervisor.map(|record| record.host);
        host.or_else(|| {
            let pool = self.registry.pool_record(&PoolName::from(resource));
            pool.map(|record| record.host)
        })
    }
}
