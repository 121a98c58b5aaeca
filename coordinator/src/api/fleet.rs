//! `hostler.fleet.v1.FleetService`: whole inventories, the history of operations, and watches.

use futures_util::{StreamExt as _, stream};
use hostler_common::id::{HypervisorId, OperationId, ResourceName};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetService;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::progress::{Responses, cut};
use super::status;
use crate::operation::engine::Engine;
use crate::operation::history::{self, Filter};
use crate::operation::record::Include;
use crate::operation::state::Event;
use crate::operation::watch::{Start, follow};
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

/// One WatchHypervisors. It holds names only: hypervisors are read when the client takes them. Who is too slow
/// for the changes is shown the whole fleet again.
struct Watcher {
    changes: Receiver<Change>,
    registry: Registry,
    shutdown: CancellationToken,
    walk: Walk,
    synced: bool,
}

enum Walk {
    /// The next one to show is the one after this id.
    After(Option<HypervisorId>),
    /// All have been shown; now changes.
    Done,
}

impl Watcher {
    async fn next(&mut self) -> Result<rpc::WatchHypervisorsResponse, Status> {
        use rpc::watch_hypervisors_response::Event;
        let show = |event| Ok(rpc::WatchHypervisorsResponse { event: Some(event) });
        loop {
            if let Walk::After(after) = &self.walk {
                let read = |view: &HypervisorView<'_>| (view.record.id.clone(), view.to_rpc());
                if let Some((id, hypervisor)) = self.registry.hypervisor_after(after.as_ref(), read) {
                    self.walk = Walk::After(Some(id));
                    return show(Event::Hypervisor(hypervisor));
                }
                self.walk = Walk::Done;
                if !std::mem::replace(&mut self.synced, true) {
                    return show(Event::Synced(rpc::Synced {}));
                }
            }
            // Cancel-safe: a broadcast receiver keeps what it has not yielded.
            let change = tokio::select! {
                () = self.shutdown.cancelled() => return Err(status::ending()),
                change = self.changes.recv() => change,
            };
            match change {
                Ok(Change::Hypervisor(id)) => {
                    if let Some(hypervisor) = self.registry.hypervisor(&id, |view| view.to_rpc()) {
                        return show(Event::Hypervisor(hypervisor));
                    }
                }
                Ok(Change::Operation(_) | Change::Host(_)) => {}
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => self.walk = Walk::After(None),
                Err(RecvError::Closed) => return Err(status::ending()),
            }
        }
    }
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
        // Subscribed before the fleet is walked, so that no change falls between.
        let watcher = Watcher {
            changes: self.registry.changes(),
            registry: self.registry.clone(),
            shutdown: self.shutdown.clone(),
            walk: Walk::After(None),
            synced: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(
            Some(watcher),
            |watcher| async move {
                let mut watcher = watcher?;
                let next = watcher.next().await;
                let goes_on = next.is_ok();
                Some((next, goes_on.then_some(watcher)))
            },
        ))))
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
