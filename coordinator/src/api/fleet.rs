//! `hostler.fleet.v1.FleetService`: whole inventories, the history of operations, watches, and the way to
//! storage pools, which `storage.rs` serves, and to clients' locks, which `hold.rs` does.

use futures_util::StreamExt as _;
use hostler_common::id::{HypervisorId, OperationId, ResourceName};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::progress::{Responses, cut};
use super::{status, watch_hypervisors};
use crate::operation::engine::Engine;
use crate::operation::history::{self, Filter};
use crate::operation::record::Include;
use crate::operation::state::Event;
use crate::operation::watch::{Start, follow};
use crate::registry::Registry;
use crate::session::asks::Asks;
use crate::store::Store;

/// Operations on a page that does not say how many.
const PAGE: usize = 100;

/// Operations on a page at most.
const PAGE_AT_MOST: usize = 1000;

/// The longest note of a resolution or a cancel, in characters.
const NOTE_AT_MOST: usize = 2000;

/// Serves [`FleetService`].
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Is read, and resolves.
    pub engine: Engine,
    /// Is read.
    pub registry: Registry,
    /// Holds the history.
    pub store: Store,
    /// Asks the owners of pools.
    pub asks: Asks,
    /// Cuts every stream.
    pub shutdown: CancellationToken,
}

impl Fleet {
    /// Waits until lists show what has become of the operation `id`: who ends a lock lists the fleet next.
    async fn shown(&self, id: OperationId) {
        // It is done, whether it can be read or not.
        if let Ok((_, revision)) = self.engine.get_at(id).await {
            self.registry.taken(revision).await;
        }
    }
}

fn words(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(NOTE_AT_MOST)
        .collect()
}

fn operation_id(text: &str) -> Result<OperationId, Status> {
    text.parse().map_err(|error| status::of_invalid(&error))
}

#[tonic::async_trait]
impl FleetService for Fleet {
    type WatchHypervisorsStream = Responses<rpc::WatchHypervisorsResponse>;
    type WatchOperationStream = Responses<rpc::WatchOperationResponse>;
    type ExpandStorageStream = Responses<rpc::ExpandStorageResponse>;
    type ShrinkStorageStream = Responses<rpc::ShrinkStorageResponse>;
    type CreateBackupStream = Responses<rpc::CreateBackupResponse>;
    type VerifyBackupStream = Responses<rpc::VerifyBackupResponse>;
    type RestoreBackupStream = Responses<rpc::RestoreBackupResponse>;
    type DeleteBackupStream = Responses<rpc::DeleteBackupResponse>;

    async fn get_hypervisor(
        &self,
        request: Request<rpc::GetHypervisorRequest>,
    ) -> Result<Response<rpc::GetHypervisorResponse>, Status> {
        let id: HypervisorId = request
            .get_ref()
            .id
            .parse()
            .map_err(|error| status::of_invalid(&error))?;
        let hypervisor = self
            .registry
            .hypervisor(&id, |view| view.to_rpc())
            .ok_or_else(|| {
                Status::not_found(format!(
                    "hypervisor {id} is not enrolled; `hostler hypervisors list` shows those that are"
                ))
            })?;
        Ok(Response::new(rpc::GetHypervisorResponse {
            hypervisor: Some(hypervisor),
        }))
    }

    async fn watch_hypervisors(
        &self,
        _request: Request<rpc::WatchHypervisorsRequest>,
    ) -> Result<Response<Self::WatchHypervisorsStream>, Status> {
        let shutdown = self.shutdown.clone();
        Ok(Response::new(watch_hypervisors::watch(
            self.registry.clone(),
            shutdown,
        )))
    }

    async fn list_operations(
        &self,
        request: Request<rpc::ListOperationsRequest>,
    ) -> Result<Response<rpc::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let resource: Option<ResourceName> = match request.resource.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|error| status::of_invalid(&error))?),
        };
        let beyond = match request.page_token.as_str() {
            "" => None,
            text => Some(operation_id(text).map_err(|_| {
                Status::invalid_argument("page_token is not one that this rpc gave: begin again without it")
            })?),
        };
        let at_most = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
            0 => PAGE,
            size if size > PAGE_AT_MOST => {
                let message = format!("page_size is {size}; at most {PAGE_AT_MOST} are allowed");
                return Err(Status::invalid_argument(message));
            }
            size => size,
        };
        let filter = Filter {
            resource,
            unended: request.unended,
        };
        let page = history::page(&self.store, &self.registry, &filter, beyond, at_most)
            .await
            .map_err(|error| status::of_engine(&error.into()))?;
        Ok(Response::new(rpc::ListOperationsResponse {
            operations: page.operations,
            next_page_token: page.next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn get_operation(
        &self,
        request: Request<rpc::GetOperationRequest>,
    ) -> Result<Response<rpc::GetOperationResponse>, Status> {
        let id = operation_id(&request.get_ref().id)?;
        let record = self
            .engine
            .get(id)
            .await
            .map_err(|error| status::of_engine(&error))?;
        Ok(Response::new(rpc::GetOperationResponse {
            operation: Some(record.to_rpc(Include::Logs)),
        }))
    }

    async fn watch_operation(
        &self,
        request: Request<rpc::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = operation_id(&request.get_ref().id)?;
        // An unknown id is an error of the call, not of its stream.
        self.engine
            .get(id)
            .await
            .map_err(|error| status::of_engine(&error))?;
        let news = follow(self.engine.clone(), self.registry.clone(), id, Start::First);
        let responses = news.map(|news| match news {
            Ok(news) => Ok(rpc::WatchOperationResponse {
                state: news.state.into(),
                msg: news.message,
                ts: Some(news.at.into()),
                measure: news.measure,
            }),
            Err(error) => Err(status::of_engine(&error)),
        });
        Ok(cut(responses, self.shutdown.clone()))
    }

    async fn resolve_operation(
        &self,
        request: Request<rpc::ResolveOperationRequest>,
    ) -> Result<Response<rpc::ResolveOperationResponse>, Status> {
        let who = Peer::of(&request)?.identity.to_string();
        let request = request.into_inner();
        let id = operation_id(&request.id)?;
        let note = words(&request.note);
        if note.trim().is_empty() {
            return Err(Status::invalid_argument(
                "note is empty: say what was found and done",
            ));
        }
        let record = self
            .engine
            .apply(id, None, Event::Resolved, |_| {
                format!("resolved by {who}: {note}")
            })
            .await
            .map_err(|error| status::of_engine(&error))?;
        tracing::info!(operation = %id, resource = %record.resource, by = who, note, "resolved");
        self.shown(id).await;
        Ok(Response::new(rpc::ResolveOperationResponse {
            operation: Some(record.to_rpc(Include::Logs)),
        }))
    }

    async fn cancel_operation(
        &self,
        request: Request<rpc::CancelOperationRequest>,
    ) -> Result<Response<rpc::CancelOperationResponse>, Status> {
        let who = Peer::of(&request)?.identity.to_string();
        let request = request.into_inner();
        let id = operation_id(&request.id)?;
        let by = match words(&request.reason).trim() {
            "" => who,
            reason => format!("{who}: {reason}"),
        };
        let record = self
            .engine
            .cancel(id, &by)
            .await
            .map_err(|error| status::of_engine(&error))?;
        tracing::info!(operation = %id, resource = %record.resource, by, state = ?record.state(), "cancel asked for");
        self.shown(id).await;
        Ok(Response::new(rpc::CancelOperationResponse {
            operation: Some(record.to_rpc(Include::Logs)),
        }))
    }

    async fn propose_operation(
        &self,
        request: Request<rpc::ProposeOperationRequest>,
    ) -> Result<Response<rpc::ProposeOperationResponse>, Status> {
        self.hold(request).await.map(Response::new)
    }

    async fn list_storage_pools(
        &self,
        _request: Request<rpc::ListStoragePoolsRequest>,
    ) -> Result<Response<rpc::ListStoragePoolsResponse>, Status> {
        Ok(Response::new(self.pools()))
    }

    async fn list_backups(
        &self,
        request: Request<rpc::ListBackupsRequest>,
    ) -> Result<Response<rpc::ListBackupsResponse>, Status> {
        self.backups(request.get_ref()).await.map(Response::new)
    }

    async fn expand_storage(
        &self,
        request: Request<rpc::ExpandStorageRequest>,
    ) -> Result<Response<Self::ExpandStorageStream>, Status> {
        self.on_pool(request).await
    }

    async fn shrink_storage(
        &self,
        request: Request<rpc::ShrinkStorageRequest>,
    ) -> Result<Response<Self::ShrinkStorageStream>, Status> {
        self.on_pool(request).await
    }

    async fn create_backup(
        &self,
        request: Request<rpc::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        self.on_pool(request).await
    }

    async fn verify_backup(
        &self,
        request: Request<rpc::VerifyBackupRequest>,
    ) -> Result<Response<Self::VerifyBackupStream>, Status> {
        self.on_pool(request).await
    }

    async fn restore_backup(
        &self,
        request: Request<rpc::RestoreBackupRequest>,
    ) -> Result<Response<Self::RestoreBackupStream>, Status> {
        self.on_pool(request).await
    }

    async fn delete_backup(
        &self,
        request: Request<rpc::DeleteBackupRequest>,
    ) -> Result<Response<Self::DeleteBackupStream>, Status> {
        self.on_pool(request).await
    }
}
