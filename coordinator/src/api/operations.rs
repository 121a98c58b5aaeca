//! `operations.v1.OperationsService`: what IsardVDI's clients call (wire.md).

use std::collections::HashSet;

use futures_util::StreamExt as _;
use hostler_common::id::HypervisorId;
use hostler_common::operation::OperationKind;
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_server::OperationsService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::listener::Peer;
use super::progress::{Responses, Said, Talk, only, respond};
use super::{bulk, status};
use crate::operation::engine::{Asker, Engine, Submitted, Wanted};
use crate::operation::watch::{Start, follow};
use crate::registry::Registry;

/// Hypervisors in one bulk call. More than the largest fleet that one coordinator serves.
const BULK_AT_MOST: usize = 10_000;

/// The longest stored reason, in characters.
const REASON_AT_MOST: usize = 500;

/// Metadata that carries why somebody asks, UTF-8.
const REASON_KEY: &str = "hostler-reason-bin";

/// The answer to every storage call while there is no pool.
const NO_POOL: &str = "no storage pool is configured";

/// Serves [`OperationsService`].
#[derive(Debug, Clone)]
pub struct Operations {
    /// Takes wishes.
    pub engine: Engine,
    /// Is listed.
    pub registry: Registry,
    /// Cuts every stream.
    pub shutdown: CancellationToken,
}

/// A wish before anything is stored: what can be said at once, or what is to be submitted.
enum Judged {
    AtOnce(Said),
    Wanted(Wanted),
}

impl Operations {
    async fn single(&self, kind: OperationKind, id: &str, asker: Asker) -> Result<Talk, Status> {
        let id: HypervisorId = id.parse().map_err(|error| status::of_invalid(&error))?;
        let mut talks = self.talks(kind, vec![id], asker).await?;
        Ok(talks.remove(0).1)
    }

    async fn bulk(&self, kind: OperationKind, ids: &[String], asker: Asker) -> Result<Talk, Status> {
        if ids.is_empty() {
            return Err(Status::invalid_argument(
                "ids is empty: name at least one hypervisor",
            ));
        }
        if ids.len() > BULK_AT_MOST {
            let message = format!(
                "{} ids in one call; at most {BULK_AT_MOST} are allowed",
                ids.len()
            );
            return Err(Status::invalid_argument(message));
        }
        let mut seen = HashSet::new();
        let mut parsed = Vec::with_capacity(ids.len());
        for id in ids {
            let id: HypervisorId = id.parse().map_err(|error| status::of_invalid(&error))?;
            if !seen.insert(id.clone()) {
                return Err(Status::invalid_argument(format!(
                    "the id {id} is given twice: name each once"
                )));
            }
            parsed.push(id);
        }
        Ok(bulk::merge(kind, self.talks(kind, parsed, asker).await?))
    }

    /// One talk for each id. Everything that has to be stored is, in one commit, when this returns.
    async fn talks(
        &self,
        kind: OperationKind,
        ids: Vec<HypervisorId>,
        asker: Asker,
    ) -> Result<Vec<(HypervisorId, Talk)>, Status> {
        let judged: Vec<_> = ids.into_iter().map(|id| (self.judge(kind, &id), id)).collect();
        let wishes: Vec<_> = judged
            .iter()
            .filter_map(|(judged, _)| match judged {
                Judged::Wanted(wanted) => Some(wanted.clone()),
                Judged::AtOnce(_) => None,
            })
            .collect();
        let submitted = match wishes.is_empty() {
            true => Vec::new(),
            false => self
                .engine
                .submit(&wishes, &asker)
                .await
                .map_err(|error| status::of_engine(&error))?,
        };
        let mut submitted = submitted.into_iter();
        let mut talks = Vec::with_capacity(judged.len());
        for (judged, id) in judged {
            let talk = match judged {
                Judged::AtOnce(said) => only(said.state, said.msg),
                Judged::Wanted(_) => match submitted.next() {
                    Some(submitted) => self.talk(submitted, &asker),
                    None => return Err(Status::internal("a wish was lost")),
                },
            };
            talks.push((id, talk));
        }
        Ok(talks)
    }

    fn judge(&self, kind: OperationKind, id: &HypervisorId) -> Judged {
        let (reached, words) = match kind {
            OperationKind::CreateHypervisor => (rpc::HypervisorState::AvailableToDestroy, "in service"),
            OperationKind::DestroyHypervisor => (rpc::HypervisorState::AvailableToCreate, "out of service"),
        };
        let judged = self.registry.hypervisor(id, |view| {
            // Out of service with a word about it means that something is left for a destroy to remove.
            let whole = kind == OperationKind::CreateHypervisor || view.reason().is_empty();
            if view.state() == reached && whole {
                let msg = format!("hypervisor {id} is {words} already: nothing to do");
                return Judged::AtOnce(Said::new(rpc::OperationState::Completed, msg));
            }
            let host = view.record.host.clone();
            Judged::Wanted(Wanted {
                kind,
                id: id.clone(),
                host,
            })
        });
        judged.unwrap_or_else(|| {
            let msg =
                format!("hypervisor {id} is not enrolled; `hostler hypervisors list` shows those that are");
            Judged::AtOnce(Said::new(rpc::OperationState::Failed, msg))
        })
    }

    fn talk(&self, submitted: Submitted, asker: &Asker) -> Talk {
        let (id, from) = match submitted {
            Submitted::Refused(why) => return only(rpc::OperationState::Failed, why),
            Submitted::Attached(id) => (id, Start::Attach),
            Submitted::New(record) => {
                tracing::info!(
                    operation = %record.id, hypervisor = %record.resource, kind = record.kind.name(),
                    by = asker.identity, reason = asker.reason, "accepted"
                );
                (record.id, Start::First)
            }
        };
        let news = follow(self.engine.clone(), self.registry.clone(), id, from);
        Box::pin(news.map(|news| match news {
            Ok(news) => Ok(Said::new(news.state, news.message)),
            Err(error) => Err(status::of_engine(&error)),
        }))
    }

    fn respond<R: From<Said> + 'static>(&self, talk: Talk) -> Response<Responses<R>> {
        respond(talk, self.shutdown.clone())
    }

    fn no_pool<R: From<Said> + 'static>(&self) -> Response<Responses<R>> {
        self.respond(only(rpc::OperationState::Failed, NO_POOL))
    }
}

fn asker<T>(request: &Request<T>) -> Result<Asker, Status> {
    let reason = request
        .metadata()
        .get_bin(REASON_KEY)
        .and_then(|value| value.to_bytes().ok())
        .map(|bytes| {
            String::from_utf8_lossy(&bytes)
                .chars()
                .filter(|c| !c.is_control())
                .take(REASON_AT_MOST)
                .collect()
        })
        .unwrap_or_default();
    Ok(Asker {
        identity: Peer::of(request)?.identity.to_string(),
        reason,
    })
}

#[tonic::async_trait]
impl OperationsService for Operations {
    type CreateHypervisorStream = Responses<rpc::CreateHypervisorResponse>;
    type CreateHypervisorsStream = Responses<rpc::CreateHypervisorsResponse>;
    type DestroyHypervisorStream = Responses<rpc::DestroyHypervisorResponse>;
    type DestroyHypervisorsStream = Responses<rpc::DestroyHypervisorsResponse>;
    type ExpandStorageStream = Responses<rpc::ExpandStorageResponse>;
    type ShrinkStorageStream = Responses<rpc::ShrinkStorageResponse>;
    type CreateBackupStream = Responses<rpc::CreateBackupResponse>;

    async fn list_hypervisors(
        &self,
        _request: Request<rpc::ListHypervisorsRequest>,
    ) -> Result<Response<rpc::ListHypervisorsResponse>, Status> {
        let hypervisors = self.registry.map_hypervisors(|view| view.to_list_entry());
        Ok(Response::new(rpc::ListHypervisorsResponse { hypervisors }))
    }

    async fn create_hypervisor(
        &self,
        request: Request<rpc::CreateHypervisorRequest>,
    ) -> Result<Response<Self::CreateHypervisorStream>, Status> {
        let asker = asker(&request)?;
        let talk = self
            .single(OperationKind::CreateHypervisor, &request.get_ref().id, asker)
            .await?;
        Ok(self.respond(talk))
    }

    async fn create_hypervisors(
        &self,
        request: Request<rpc::CreateHypervisorsRequest>,
    ) -> Result<Response<Self::CreateHypervisorsStream>, Status> {
        let asker = asker(&request)?;
        let talk = self
            .bulk(OperationKind::CreateHypervisor, &request.get_ref().ids, asker)
            .await?;
        Ok(self.respond(talk))
    }

    async fn destroy_hypervisor(
        &self,
        request: Request<rpc::DestroyHypervisorRequest>,
    ) -> Result<Response<Self::DestroyHypervisorStream>, Status> {
        let asker = asker(&request)?;
        let talk = self
            .single(OperationKind::DestroyHypervisor, &request.get_ref().id, asker)
            .await?;
        Ok(self.respond(talk))
    }

    async fn destroy_hypervisors(
        &self,
        request: Request<rpc::DestroyHypervisorsRequest>,
    ) -> Result<Response<Self::DestroyHypervisorsStream>, Status> {
        let asker = asker(&request)?;
        let talk = self
            .bulk(OperationKind::DestroyHypervisor, &request.get_ref().ids, asker)
            .await?;
        Ok(self.respond(talk))
    }

    async fn expand_storage(
        &self,
        _request: Request<rpc::ExpandStorageRequest>,
    ) -> Result<Response<Self::ExpandStorageStream>, Status> {
        Ok(self.no_pool())
    }

    async fn shrink_storage(
        &self,
        _request: Request<rpc::ShrinkStorageRequest>,
    ) -> Result<Response<Self::ShrinkStorageStream>, Status> {
        Ok(self.no_pool())
    }

    async fn create_backup(
        &self,
        _request: Request<rpc::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        Ok(self.no_pool())
    }
}
