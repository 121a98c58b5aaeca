//! `hostler.fleet.v1.FleetService`: whole inventories, the history of operations, and watches.

use futures_util::{StreamExt as _, stream};
use hostler_common::id::{HypervisorId, OperationId, ResourceName};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetService;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::progress::Responses;
use super::status;
use crate::operation::engine::Engine;
use crate::operation::history::{self, Filter};
use crate::operation::record::Include;
use crate::operation::state::Event;
use crate::operation::watch::{From, follow};
use crate::registry::{Change, HypervisorView, Registry};
use crate::store::Store;

/// Operations on a page that does not say how many.
const PAGE: usize = 100;

/// Operations on a page at most.
const PAGE_AT_MOST: usize = 1000;

/// The longest note of a resolution, in characters.
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
    /// Cuts every stream.
    pub shutdown: CancellationToken,
}

fn operation_id(text: &str) -> Result<OperationId, Status> {
    text.parse().map_err(|error| status::of_invalid(&error))
}

#[tonic::async_trait]
impl FleetService for Fleet {
    type WatchHypervisorsStream = Responses<rpc::WatchHypervisorsResponse>;
    type WatchOperationStream = Responses<rpc::WatchOperationResponse>;

    async fn get_hypervisor(
        &self,
        request: Request<rpc::GetHypervisorRequest>,
    ) -> Result<Response<rpc::GetHypervisorResponse>, Status> {
        let id: HypervisorId = request
            .get_ref()
            .id
            .parse()
            .map_err(|error| status::of_invalid(&error))?;
        let view = self.registry.hypervisor(&id).ok_or_else(|| {
            Status::not_found(format!(
                "hypervisor {id} is not enrolled; `hostler hypervisors list` shows those that are"
            ))
        })?;
        Ok(Response::new(rpc::GetHypervisorResponse {
            hypervisor: Some(view.to_rpc()),
        }))
    }

    async fn watch_hypervisors(
        &self,
        _request: Request<rpc::WatchHypervisorsRequest>,
    ) -> Result<Response<Self::WatchHypervisorsStream>, Status> {
        use rpc::watch_hypervisors_response::Event;
        // Subscribed before the fleet is read, so that no change falls between.
        let changes = self.registry.changes();
        let response = |event| Ok(rpc::WatchHypervisorsResponse { event: Some(event) });
        let now = self.registry.map_hypervisors(HypervisorView::to_rpc);
        let now = stream::iter(now).map(move |hypervisor| response(Event::Hypervisor(hypervisor)));
        let synced = stream::once(std::future::ready(response(Event::Synced(rpc::Synced {}))));
        let state = Some((changes, self.registry.clone(), self.shutdown.clone()));
        let later = stream::unfold(state, move |state| async move {
            let (mut changes, registry, shutdown) = state?;
            loop {
                // Cancel-safe: a broadcast receiver keeps what it has not yielded.
                let change = tokio::select! {
                    () = shutdown.cancelled() => return Some((Err(status::ending()), None)),
                    change = changes.recv() => change,
                };
                match change {
                    Ok(Change::Hypervisor(id)) => {
                        if let Some(view) = registry.hypervisor(&id) {
                            let event = response(Event::Hypervisor(view.to_rpc()));
                            return Some((event, Some((changes, registry, shutdown))));
                        }
                    }
                    Ok(Change::Operation(_) | Change::Host(_)) => {}
                    Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                        let slow = Status::resource_exhausted("changes were missed: call again");
                        return Some((Err(slow), None));
                    }
                    Err(RecvError::Closed) => return Some((Err(status::ending()), None)),
                }
            }
        });
        Ok(Response::new(Box::pin(now.chain(synced).chain(later))))
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
            .map_err(|error| status::of_engine(&error))?;
        Ok(Response::new(rpc::ListOperationsResponse {
            operations: page
                .operations
                .iter()
                .map(|record| record.to_rpc(Include::Summary))
                .collect(),
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
        let news = follow(self.engine.clone(), self.registry.clone(), id, From::Begin);
        let state = Some((Box::pin(news), self.shutdown.clone()));
        let until = stream::unfold(state, |state| async move {
            let (mut news, shutdown) = state?;
            // Cancel-safe: the stream keeps its state across polls of `next`.
            let news_item = tokio::select! {
                biased;
                item = news.next() => item?,
                () = shutdown.cancelled() => return Some((Err(status::ending()), None)),
            };
            Some(match news_item {
                Ok(item) => {
                    let ts = Some(item.at.into());
                    let response = rpc::WatchOperationResponse {
                        state: item.state.into(),
                        msg: item.message,
                        ts,
                    };
                    (Ok(response), Some((news, shutdown)))
                }
                Err(error) => (Err(status::of_engine(&error)), None),
            })
        });
        Ok(Response::new(Box::pin(until)))
    }

    async fn resolve_operation(
        &self,
        request: Request<rpc::ResolveOperationRequest>,
    ) -> Result<Response<rpc::ResolveOperationResponse>, Status> {
        let who = Peer::of(&request)?.identity.to_string();
        let request = request.into_inner();
        let id = operation_id(&request.id)?;
        let note: String = request
            .note
            .chars()
            .filter(|c| !c.is_control())
            .take(NOTE_AT_MOST)
            .collect();
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
        tracing::info!(operation = %id, hypervisor = %record.resource, by = who, note, "resolved");
        Ok(Response::new(rpc::ResolveOperationResponse {
            operation: Some(record.to_rpc(Include::Logs)),
        }))
    }
}
