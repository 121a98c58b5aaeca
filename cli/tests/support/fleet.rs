//! The fleet's part of the coordinator that plays fixed parts.

use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_server::FleetService;
use hostler_common::rpc::hostler::fleet::v1::watch_hypervisors_response::Event;
use hostler_common::rpc::operations::v1::{self as operations, OperationState};
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

use super::{FIRM, HALF, ID, OTHER, Player, Responses, locks, say, storage, stream};

impl Player {
    /// Remembers a request about pools, and its reason.
    fn asked_of_pool<T: std::fmt::Debug>(&self, request: &Request<T>) {
        let mut asked = self.0.lock().unwrap();
        asked.of_pools.push(format!("{:?}", request.get_ref()));
        let reason = request.metadata().get_bin("hostler-reason-bin");
        let reason = reason.map(|value| String::from_utf8(value.to_bytes().unwrap().to_vec()).unwrap());
        asked.reasons.extend(reason);
    }
}

#[tonic::async_trait]
impl FleetService for Player {
    type WatchHypervisorsStream = Responses<fleet::WatchHypervisorsResponse>;
    type WatchOperationStream = Responses<fleet::WatchOperationResponse>;
    type ExpandStorageStream = Responses<fleet::ExpandStorageResponse>;
    type ShrinkStorageStream = Responses<fleet::ShrinkStorageResponse>;
    type CreateBackupStream = Responses<fleet::CreateBackupResponse>;
    type VerifyBackupStream = Responses<fleet::VerifyBackupResponse>;
    type RestoreBackupStream = Responses<fleet::RestoreBackupResponse>;
    type DeleteBackupStream = Responses<fleet::DeleteBackupResponse>;

    async fn get_hypervisor(
        &self,
        request: Request<fleet::GetHypervisorRequest>,
    ) -> Result<Response<fleet::GetHypervisorResponse>, Status> {
        Err(Status::not_found(format!(
            "hypervisor {} is not enrolled",
            request.into_inner().id
        )))
    }

    async fn watch_hypervisors(
        &self,
        _: Request<fleet::WatchHypervisorsRequest>,
    ) -> Result<Response<Self::WatchHypervisorsStream>, Status> {
        let hypervisor = |id: &str, state: operations::HypervisorState| {
            Event::Hypervisor(fleet::Hypervisor {
                id: id.into(),
                host: "node1".into(),
                state: state.into(),
                ..Default::default()
            })
        };
        use operations::HypervisorState::{AvailableToCreate, AvailableToDestroy};
        let events = [
            hypervisor("hv2", AvailableToCreate),
            hypervisor("hv1", AvailableToCreate),
            Event::Synced(fleet::Synced {}),
            hypervisor("hv2", AvailableToDestroy),
            // A reader that was too slow gets everything again, without a mark.
            hypervisor("hv1", AvailableToCreate),
            hypervisor("hv2", AvailableToDestroy),
            hypervisor("hv1", AvailableToDestroy),
            Event::Gone(fleet::Gone { id: "hv2".into() }),
            // Once is enough.
            Event::Gone(fleet::Gone { id: "hv2".into() }),
        ];
        let events = events.map(|event| Ok(fleet::WatchHypervisorsResponse { event: Some(event) }));
        Ok(Response::new(Box::pin(
            tokio_stream::iter(events).chain(tokio_stream::pending()),
        )))
    }

    async fn list_operations(
        &self,
        request: Request<fleet::ListOperationsRequest>,
    ) -> Result<Response<fleet::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap().pages.push(request.page_size);
        if self.0.lock().unwrap().locks {
            let mut operations = locks::all();
            operations.retain(|it| request.resource.is_empty() || it.resource == request.resource);
            return Ok(Response::new(fleet::ListOperationsResponse {
                operations,
                ..Default::default()
            }));
        }
        let (id, next_page_token) = if request.page_token.is_empty() {
            (OTHER, "2")
        } else {
            (ID, "")
        };
        let operation = fleet::Operation {
            id: id.into(),
            resource: "hv1".into(),
            kind: "CreateHypervisor".into(),
            state: OperationState::Completed.into(),
            ..Default::default()
        };
        let next_page_token = next_page_token.into();
        Ok(Response::new(fleet::ListOperationsResponse {
            operations: vec![operation],
            next_page_token,
        }))
    }

    async fn get_operation(
        &self,
        request: Request<fleet::GetOperationRequest>,
    ) -> Result<Response<fleet::GetOperationResponse>, Status> {
        let id = request.into_inner().id;
        if self.0.lock().unwrap().cancels.is_empty() {
            return Err(Status::not_found("no such operation is kept"));
        }
        let operation = fleet::Operation {
            needs_attention: id == HALF,
            message: "cancelled by operator/alice; undoing it failed: no disk; fast stays locked".into(),
            id,
            ..Default::default()
        };
        Ok(Response::new(fleet::GetOperationResponse {
            operation: Some(operation),
        }))
    }

    async fn watch_operation(
        &self,
        request: Request<fleet::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        use OperationState::{Active, Completed, Scheduled};
        let id = request.into_inner().id;
        if !self.0.lock().unwrap().cancels.is_empty() {
            return Ok(Response::new(storage::watched(storage::cancelled(&id))));
        }
        let watches = {
            let mut asked = self.0.lock().unwrap();
            asked.watches += 1;
            asked.watches
        };
        // The coordinator is not back yet at the first attempt.
        if watches == 1 {
            return Err(Status::unavailable("starting"));
        }
        if !self.0.lock().unwrap().of_pools.is_empty() {
            return Ok(Response::new(storage::watched(storage::resumed())));
        }
        if id == HALF {
            return Ok(Response::new(storage::watched(storage::tale("", "shrink"))));
        }
        let lines = vec![
            say(
                Scheduled,
                format!("operation {id}: create breaks on host node1: scheduled"),
            ),
            say(Active, "define domain"),
            say(Active, "start domain"),
            say(Completed, "in service"),
        ];
        Ok(Response::new(stream(lines, |state, msg| {
            fleet::WatchOperationResponse {
                state: state.into(),
                msg,
                ts: Some(prost_types::Timestamp {
                    seconds: 1_795_300_000,
                    nanos: 0,
                }),
                measure: None,
            }
        })))
    }

    async fn resolve_operation(
        &self,
        _: Request<fleet::ResolveOperationRequest>,
    ) -> Result<Response<fleet::ResolveOperationResponse>, Status> {
        Err(Status::permission_denied("the role admin is needed"))
    }

    async fn cancel_operation(
        &self,
        request: Request<fleet::CancelOperationRequest>,
    ) -> Result<Response<fleet::CancelOperationResponse>, Status> {
        let fleet::CancelOperationRequest { id, reason } = request.into_inner();
        if id == FIRM && self.0.lock().unwrap().locks {
            return Err(locks::firm(&id));
        }
        if id == FIRM {
            return Err(Status::failed_precondition(format!(
                "operation {id}: delete a backup of fast cannot be stopped while it runs"
            )));
        }
        self.0.lock().unwrap().cancels.push((id.clone(), reason));
        let operation = fleet::Operation {
            id,
            resource: "fast".into(),
            kind: "ShrinkStorage".into(),
            state: OperationState::Active.into(),
            ..Default::default()
        };
        Ok(Response::new(fleet::CancelOperationResponse {
            operation: Some(operation),
        }))
    }

    async fn propose_operation(
        &self,
        request: Request<fleet::ProposeOperationRequest>,
    ) -> Result<Response<fleet::ProposeOperationResponse>, Status> {
        locks::propose(&mut self.0.lock().unwrap(), request.into_inner()).map(Response::new)
    }

    async fn list_storage_pools(
        &self,
        request: Request<fleet::ListStoragePoolsRequest>,
    ) -> Result<Response<fleet::ListStoragePoolsResponse>, Status> {
        self.asked_of_pool(&request);
        Ok(Response::new(fleet::ListStoragePoolsResponse {
            pools: storage::pools(),
        }))
    }

    async fn list_backups(
        &self,
        request: Request<fleet::ListBackupsRequest>,
    ) -> Result<Response<fleet::ListBackupsResponse>, Status> {
        self.asked_of_pool(&request);
        match request.into_inner().pool.as_str() {
            "away" => Err(Status::unavailable("the host of pool away is not connected")),
            "unheard" => Err(Status::not_found("no storage pool is called unheard")),
            pool => Ok(Response::new(fleet::ListBackupsResponse {
                pool: if pool.is_empty() {
                    "fast".into()
                } else {
                    pool.into()
                },
                backups: storage::backups(),
            })),
        }
    }

    async fn expand_storage(
        &self,
        request: Request<fleet::ExpandStorageRequest>,
    ) -> Result<Response<Self::ExpandStorageStream>, Status> {
        self.asked_of_pool(&request);
        let request = request.into_inner();
        storage::refusal(&request.pool)?;
        let lines = match request.dry_run {
            true => storage::dry_run(&request.pool, "expand"),
            false => storage::tale(&request.pool, "expand"),
        };
        Ok(Response::new(storage::stream(lines, |it| {
            fleet::ExpandStorageResponse {
                state: it.state.into(),
                msg: it.msg,
                measure: it.measure,
                operation_id: it.operation,
            }
        })))
    }

    async fn shrink_storage(
        &self,
        request: Request<fleet::ShrinkStorageRequest>,
    ) -> Result<Response<Self::ShrinkStorageStream>, Status> {
        self.asked_of_pool(&request);
        let request = request.into_inner();
        storage::refusal(&request.pool)?;
        let lines = match request.dry_run {
            true => storage::dry_run(&request.pool, "shrink"),
            false => storage::tale(&request.pool, "shrink"),
        };
        Ok(Response::new(storage::stream(lines, |it| {
            fleet::ShrinkStorageResponse {
                state: it.state.into(),
                msg: it.msg,
                measure: it.measure,
                operation_id: it.operation,
            }
        })))
    }

    async fn create_backup(
        &self,
        request: Request<fleet::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        self.asked_of_pool(&request);
        let request = request.into_inner();
        storage::refusal(&request.pool)?;
        let lines = storage::tale(&request.pool, "back up");
        Ok(Response::new(storage::stream(lines, |it| {
            fleet::CreateBackupResponse {
                state: it.state.into(),
                msg: it.msg,
                measure: it.measure,
                operation_id: it.operation,
            }
        })))
    }

    async fn verify_backup(
        &self,
        request: Request<fleet::VerifyBackupRequest>,
    ) -> Result<Response<Self::VerifyBackupStream>, Status> {
        self.asked_of_pool(&request);
        let request = request.into_inner();
        storage::refusal(&request.pool)?;
        let lines = storage::tale(&request.pool, "verify");
        Ok(Response::new(storage::stream(lines, |it| {
            fleet::VerifyBackupResponse {
                state: it.state.into(),
                msg: it.msg,
                measure: it.measure,
                operation_id: it.operation,
            }
        })))
    }

    async fn restore_backup(
        &self,
        request: Request<fleet::RestoreBackupRequest>,
    ) -> Result<Response<Self::RestoreBackupStream>, Status> {
        self.asked_of_pool(&request);
        let request = request.into_inner();
        storage::refusal(&request.pool)?;
        let lines = storage::tale(&request.pool, "restore");
        Ok(Response::new(storage::stream(lines, |it| {
            fleet::RestoreBackupResponse {
                state: it.state.into(),
                msg: it.msg,
                measure: it.measure,
                operation_id: it.operation,
            }
        })))
    }

    async fn delete_backup(
        &self,
        request: Request<fleet::DeleteBackupRequest>,
    ) -> Result<Response<Self::DeleteBackupStream>, Status> {
        self.asked_of_pool(&request);
        let request = request.into_inner();
        storage::refusal(&request.pool)?;
        let lines = match request.dry_run {
            true => storage::dry_run(&request.pool, "delete"),
            false => storage::tale(&request.pool, "delete"),
        };
        Ok(Response::new(storage::stream(lines, |it| {
            fleet::DeleteBackupResponse {
                state: it.state.into(),
                msg: it.msg,
                measure: it.measure,
                operation_id: it.operation,
            }
        })))
    }
}
