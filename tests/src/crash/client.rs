//! A client as clients are: it calls once, reads the stream, and when that breaks it looks for its operation by the
//! id that it was told. It never repeats a change: what was not acknowledged is looked for in the history.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use hostler_common::rpc::operations::v1 as operations;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_pki::{ChannelOptions, Credentials};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::programs::Site;

/// A question that takes longer is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Before a broken stream is followed again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// The hypervisor goes into service.
    Create,
    /// It goes out of service.
    Destroy,
    /// The pool grows by at least so many bytes.
    Expand(u64),
    /// The pool shrinks by at most so many bytes.
    Shrink(u64),
    /// The pool is backed up.
    Backup,
    /// This file of the latest backup replaces what is there.
    Restore(String),
    /// The newest backup is checked.
    Verify,
    /// This backup goes.
    Delete(String),
    /// The hypervisor is kept from everybody else.
    Hold,
}

impl Call {
    /// Its kind, as in the history.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create => "CreateHypervisor",
            Self::Destroy => "DestroyHypervisor",
            Self::Expand(_) => "ExpandStorage",
            Self::Shrink(_) => "ShrinkStorage",
            Self::Backup => "CreateBackup",
            Self::Restore(_) => "RestoreBackup",
            Self::Verify => "VerifyBackup",
            Self::Delete(_) => "DeleteBackup",
            Self::Hold => "ProposeOperation",
        }
    }
}

/// How far a call is, for who waits for a moment of it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The operation, once it was acknowledged.
    pub id: Option<String>,
    /// Its lines so far.
    pub lines: u64,
    /// Nothing more comes.
    pub over: bool,
}

/// What the client came to know.
#[derive(Debug, Clone)]
pub struct Told {
    /// What was asked.
    pub call: Call,
    /// The operation, when it was acknowledged.
    pub id: Option<String>,
    /// Its end, as the stream had it.
    pub end: Option<OperationState>,
    /// The last line.
    pub last: String,
    /// An acknowledged operation that the coordinator does not know.
    pub lost: bool,
}

struct Heard {
    state: OperationState,
    line: String,
    id: Option<String>,
    measure: bool,
}

type Hearing = Pin<Box<dyn Stream<Item = Result<Heard, Status>> + Send>>;

/// An administrator of the fleet.
#[derive(Debug, Clone)]
pub struct Client {
    operations: OperationsServiceClient<Channel>,
    fleet: FleetServiceClient<Channel>,
}

impl Client {
    /// Of the site's coordinator. It connects at the first call.
    ///
    /// # Errors
    /// When there is no certificate for it.
    pub fn of(site: &Site) -> anyhow::Result<Self> {
        let credentials = Credentials::load(&site.ca.files("client/admin/crash"))?;
        let config = hostler_pki::client_config(&credentials)?;
        let address = format!("127.0.0.1:{}", site.port).parse().context("an address")?;
        let channel = hostler_pki::channel(&address, config, ChannelOptions::default());
        Ok(Self {
            operations: OperationsServiceClient::new(channel.clone()),
            fleet: FleetServiceClient::new(channel),
        })
    }

    /// Makes the call and follows its operation to the end; `seen` tells how far it is.
    pub async fn follow(mut self, call: Call, seen: watch::Sender<Seen>) -> Told {
        let mut told = Told {
            call: call.clone(),
            id: None,
            end: None,
            last: String::new(),
            lost: false,
        };
        if let Ok(stream) = self.begin(&call).await {
            self.hear(stream, &mut told, &seen).await;
        }
        while let (Some(id), None, false) = (told.id.clone(), told.end, told.lost) {
            match self.watch(id).await {
                Ok(stream) => self.hear(stream, &mut told, &seen).await,
                Err(status) => told.lost = status.code() == Code::NotFound,
            }
            if told.end.is_none() {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
        seen.send_modify(|seen| seen.over = true);
        told
    }

    async fn hear(&self, mut stream: Hearing, told: &mut Told, seen: &watch::Sender<Seen>) {
        let mut lines = 0;
        while let Some(Ok(heard)) = stream.next().await {
            lines += u64::from(!heard.measure);
            if told.id.is_none() {
                told.id = heard.id;
            }
            seen.send_modify(|seen| {
                // A stream that is followed again tells everything again.
                seen.lines = seen.lines.max(lines);
                seen.id = told.id.clone();
            });
            told.last = heard.line;
            if matches!(heard.state, OperationState::Completed | OperationState::Failed) {
                told.end = Some(heard.state);
            }
        }
    }

    async fn begin(&mut self, call: &Call) -> Result<Hearing, Status> {
        let id = "hv1".to_owned();
        let pool = String::new();
        Ok(match call {
            Call::Create => {
                let stream = self
                    .operations
                    .create_hypervisor(operations::CreateHypervisorRequest { id });
                Box::pin(
                    stream
                        .await?
                        .into_inner()
                        .map(|said| said.map(|said| heard(said.state(), said.msg, None, None::<()>))),
                )
            }
            Call::Destroy => {
                let stream = self
                    .operations
                    .destroy_hypervisor(operations::DestroyHypervisorRequest { id });
                Box::pin(
                    stream
                        .await?
                        .into_inner()
                        .map(|said| said.map(|said| heard(said.state(), said.msg, None, None::<()>))),
                )
            }
            Call::Expand(min_bytes) => {
                let stream = self.fleet.expand_storage(fleet::ExpandStorageRequest {
                    pool,
                    min_bytes: *min_bytes,
                    dry_run: false,
                });
                Box::pin(stream.await?.into_inner().map(|said| {
                    said.map(|said| heard(said.state(), said.msg, Some(said.operation_id), said.measure))
                }))
            }
            Call::Shrink(max_bytes) => {
                let stream = self.fleet.shrink_storage(fleet::ShrinkStorageRequest {
                    pool,
                    max_bytes: *max_bytes,
                    dry_run: false,
                });
                Box::pin(stream.await?.into_inner().map(|said| {
                    said.map(|said| heard(said.state(), said.msg, Some(said.operation_id), said.measure))
                }))
            }
            Call::Backup => {
                let stream = self.fleet.create_backup(fleet::CreateBackupRequest { pool });
                Box::pin(stream.await?.into_inner().map(|said| {
                    said.map(|said| heard(said.state(), said.msg, Some(said.operation_id), said.measure))
                }))
            }
            Call::Restore(path) => {
                let stream = self.fleet.restore_backup(fleet::RestoreBackupRequest {
                    pool,
                    id: "latest".to_owned(),
                    target: String::new(),
                    paths: vec![path.clone()],
                    overwrite: true,
                });
                Box::pin(stream.await?.into_inner().map(|said| {
                    said.map(|said| heard(said.state(), said.msg, Some(said.operation_id), said.measure))
                }))
            }
            Call::Verify => {
                let stream = self.fleet.verify_backup(fleet::VerifyBackupRequest {
                    pool,
                    id: String::new(),
                    read_percent: 100,
                });
                Box::pin(stream.await?.into_inner().map(|said| {
                    said.map(|said| heard(said.state(), said.msg, Some(said.operation_id), said.measure))
                }))
            }
            Call::Delete(backup) => {
                let stream = self.fleet.delete_backup(fleet::DeleteBackupRequest {
                    pool,
                    id: backup.clone(),
                    dry_run: false,
                });
                Box::pin(stream.await?.into_inner().map(|said| {
                    said.map(|said| heard(said.state(), said.msg, Some(said.operation_id), said.measure))
                }))
            }
            Call::Hold => return Err(Status::invalid_argument("a hold has no stream")),
        })
    }

    async fn watch(&mut self, id: String) -> Result<Hearing, Status> {
        let stream = self.fleet.watch_operation(fleet::WatchOperationRequest { id });
        Ok(Box::pin(stream.await?.into_inner().map(|said| {
            said.map(|said| heard(said.state(), said.msg, None, said.measure))
        })))
    }

    /// Every operation that there has been, newest first. `None` while the coordinator does not answer.
    pub async fn history(&self) -> Option<Vec<fleet::Operation>> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = fleet::ListOperationsRequest {
                page_size: 1000,
                page_token,
                ..Default::default()
            };
            let mut fleet = self.fleet.clone();
            let page = answered(fleet.list_operations(request)).await?;
            all.extend(page.operations);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Some(all);
            }
        }
    }

    /// The hypervisor as it is listed.
    pub async fn hypervisor(&self) -> Option<fleet::Hypervisor> {
        let request = fleet::GetHypervisorRequest { id: "hv1".to_owned() };
        let mut fleet = self.fleet.clone();
        answered(fleet.get_hypervisor(request)).await?.hypervisor
    }

    /// The pool as it is listed.
    pub async fn pool(&self) -> Option<fleet::StoragePool> {
        let mut fleet = self.fleet.clone();
        let list = answered(fleet.list_storage_pools(fleet::ListStoragePoolsRequest {})).await?;
        list.pools.into_iter().next()
    }

    /// The ids of the pool's backups as they are listed.
    pub async fn backups(&self) -> Option<Vec<String>> {
        let mut fleet = self.fleet.clone();
        let list = answered(fleet.list_backups(fleet::ListBackupsRequest::default())).await?;
        Some(list.backups.into_iter().map(|backup| backup.id).collect())
    }

    /// Asks for the end of an operation, until the coordinator has heard it. It may refuse.
    pub async fn cancel(&self, id: String) {
        let request = fleet::CancelOperationRequest {
            id,
            reason: "a test".to_owned(),
        };
        loop {
            let mut fleet = self.fleet.clone();
            let call = fleet.cancel_operation(request.clone());
            match tokio::time::timeout(ANSWER_WITHIN, call).await {
                Ok(Ok(_)) => return,
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => return,
                _ => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }

    /// Takes or renews the lock on the hypervisor, or gives it back with 0 seconds, until the coordinator has heard
    /// it. `None` when it refuses.
    pub async fn hold(&self, token: &str, seconds: u32) -> Option<fleet::Operation> {
        let proposal = ProposeOperationRequest {
            name: "hv1".to_owned(),
            proposing_peer_token: token.to_owned(),
            lock_for_seconds: seconds,
            ..Default::default()
        };
        let request = fleet::ProposeOperationRequest {
            proposal: Some(proposal),
            reason: "a test".to_owned(),
        };
        loop {
            let mut fleet = self.fleet.clone();
            let call = fleet.propose_operation(request.clone());
            match tokio::time::timeout(ANSWER_WITHIN, call).await {
                Ok(Ok(answer)) => return answer.into_inner().operation,
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => return None,
                _ => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }

    /// A person has looked.
    pub async fn resolve(&self, id: String) -> Option<()> {
        let note = "the crash harness looked".to_owned();
        let mut fleet = self.fleet.clone();
        answered(fleet.resolve_operation(fleet::ResolveOperationRequest { id, note }))
            .await
            .map(drop)
    }
}

async fn answered<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Option<T> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, call).await.ok()?;
    answer.ok().map(tonic::Response::into_inner)
}

fn heard<M>(state: OperationState, line: String, id: Option<String>, measure: Option<M>) -> Heard {
    // Streams of operations.v1 have no field for it: their first line names it.
    let named = || Some(line.strip_prefix("operation ")?.split_once(':')?.0.to_owned());
    Heard {
        state,
        id: id.or_else(named).filter(|id| !id.is_empty()),
        line,
        measure: measure.is_some(),
    }
}
