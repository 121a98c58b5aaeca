//! `operations.v1.OperationsService`: what IsardVDI's clients call (wire.md).

use std::collections::HashSet;

use hostler_common::id::HypervisorId;
use hostler_common::operation::OperationKind;
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_server::OperationsService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::pool::OnPool;
use super::progress::{Responses, Said, Talk, only, respond};
use super::submit::{Submit, asked, asker};
use super::{bulk, status};
use crate::operation::engine::Engine;
use crate::operation::wish::{Asked, Asker, Wanted};
use crate::registry::Registry;

/// Hypervisors in one bulk call. More than the largest fleet that one coordinator serves.
const BULK_AT_MOST: usize = 10_000;

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

/// What is done to a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Create,
    Destroy,
}

impl Direction {
    fn kind(self) -> OperationKind {
        match self {
            Self::Create => OperationKind::CreateHypervisor,
            Self::Destroy => OperationKind::DestroyHypervisor,
        }
    }

    /// The request for one hypervisor, which stands for its part of a bulk request too.
    fn asked(self, id: &HypervisorId) -> Result<Asked, Status> {
        let id = id.to_string();
        match self {
            Self::Create => asked(&rpc::CreateHypervisorRequest { id }),
            Self::Destroy => asked(&rpc::DestroyHypervisorRequest { id }),
        }
    }
}

/// A wish before anything is stored: what can be said at once, or what is to be submitted.
enum Judged {
    AtOnce(Said),
    Wanted(Wanted),
}

impl Operations {
    async fn single(&self, direction: Direction, id: &str, asker: Asker) -> Result<Talk, Status> {
        let id: HypervisorId = id.parse().map_err(|error| status::of_invalid(&error))?;
        let mut talks = self.talks(direction, vec![id], asker).await?;
        Ok(talks.remove(0).1)
    }

    async fn bulk(&self, direction: Direction, ids: &[String], asker: Asker) -> Result<Talk, Status> {
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
        Ok(bulk::merge(
            direction.kind(),
            self.talks(direction, parsed, asker).await?,
        ))
    }

    /// One talk for each id. Everything that has to be stored is, in one commit, when this returns.
    async fn talks(
        &self,
        direction: Direction,
        ids: Vec<HypervisorId>,
        asker: Asker,
    ) -> Result<Vec<(HypervisorId, Talk)>, Status> {
        let mut judged = Vec::with_capacity(ids.len());
        for id in ids {
            judged.push((self.judge(direction, &id)?, id));
        }
        let wishes: Vec<_> = judged
            .iter()
            .filter_map(|(judged, _)| match judged {
                Judged::Wanted(wanted) => Some(wanted.clone()),
                Judged::AtOnce(_) => None,
            })
            .collect();
        let mut submitted = self.submit().all(&wishes, &asker).await?.into_iter();
        let mut talks = Vec::with_capacity(judged.len());
        for (judged, id) in judged {
            let talk = match judged {
                Judged::AtOnce(said) => only(said.state, said.msg),
                Judged::Wanted(_) => submitted
                    .next()
                    .ok_or_else(|| Status::internal("a wish was lost"))?,
            };
            talks.push((id, talk));
        }
        Ok(talks)
    }

    fn judge(&self, direction: Direction, id: &HypervisorId) -> Result<Judged, Status> {
        let (reached, words) = match direction {
            Direction::Create => (rpc::HypervisorState::AvailableToDestroy, "in service"),
            Direction::Destroy => (rpc::HypervisorState::AvailableToCreate, "out of service"),
        };
        let asked = direction.asked(id)?;
        let judged = self.registry.hypervisor(id, |view| {
            // Out of service with a word about it means that something is left for a destroy to remove.
            let whole = direction == Direction::Create || view.reason().is_empty();
            if view.state() == reached && whole {
                let msg = format!("hypervisor {id} is {words} already: nothing to do");
                return Judged::AtOnce(Said::new(rpc::OperationState::Completed, msg));
            }
            let host = view.record.host.clone();
            Judged::Wanted(Wanted {
                asked,
                resource: id.into(),
                host,
            })
        });
        Ok(judged.unwrap_or_else(|| {
            let msg =
                format!("hypervisor {id} is not enrolled; `hostler hypervisors list` shows those that are");
            Judged::AtOnce(Said::new(rpc::OperationState::Failed, msg))
        }))
    }

    fn respond<R: From<Said> + 'static>(&self, talk: Talk) -> Response<Responses<R>> {
        respond(talk, self.shutdown.clone())
    }

    async fn on_pool<M: OnPool, R: From<Said> + 'static>(
        &self,
        request: Request<M>,
    ) -> Result<Response<Responses<R>>, Status> {
        let asker = asker(&request)?;
        let talk = self.submit().on_pool(request.get_ref(), &asker).await?;
        Ok(self.respond(talk))
    }

    fn submit(&self) -> Submit {
        Submit::new(&self.engine, &self.registry)
    }
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
            .single(Direction::Create, &request.get_ref().id, asker)
            .await?;
        Ok(self.respond(talk))
    }

    async fn create_hypervisors(
        &self,
        request: Request<rpc::CreateHypervisorsRequest>,
    ) -> Result<Response<Self::CreateHypervisorsStream>, Status> {
        let asker = asker(&request)?;
        let talk = self
            .bulk(Direction::Create, &request.get_ref().ids, asker)
            .await?;
        Ok(self.respond(talk))
    }

    async fn destroy_hypervisor(
        &self,
        request: Request<rpc::DestroyHypervisorRequest>,
    ) -> Result<Response<Self::DestroyHypervisorStream>, Status> {
        let asker = asker(&request)?;
        let talk = self
            .single(Direction::Destroy, &request.get_ref().id, asker)
            .await?;
        Ok(self.respond(talk))
    }

    async fn destroy_hypervisors(
        &self,
        request: Request<rpc::DestroyHypervisorsRequest>,
    ) -> Result<Response<Self::DestroyHypervisorsStream>, Status> {
        let asker = asker(&request)?;
        let talk = self
            .bulk(Direction::Destroy, &request.get_ref().ids, asker)
            .await?;
        Ok(self.respond(talk))
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
}
