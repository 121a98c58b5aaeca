//! One shape for all the streams that tell of operations. It opens and reads them, and decides nothing.

use hostler_common::id::OperationId;
use hostler_common::measure;
use hostler_common::rpc::hostler::agent::v1::Measure;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::operations::v1::{
    CreateHypervisorRequest, CreateHypervisorResponse, CreateHypervisorsRequest, CreateHypervisorsResponse,
    DestroyHypervisorRequest, DestroyHypervisorResponse, DestroyHypervisorsRequest,
    DestroyHypervisorsResponse,
};
use hostler_common::units::UnixMillis;
use prost_types::Timestamp;
use tonic::{Response, Status, Streaming};

use super::wish::{Asked, Wish};
use crate::connect::{Call, Coordinator};
use crate::output::view::{OperationState, rfc3339};

/// What to open a stream with.
#[derive(Debug)]
pub(super) enum Request {
    Change(Wish),
    /// `prefix` goes before each message, as a bulk call does it.
    Watch {
        id: OperationId,
        prefix: String,
    },
}

impl Request {
    /// For error messages.
    pub(super) fn call(&self) -> Call {
        match self {
            Self::Watch { .. } => Call::read("WatchOperation"),
            Self::Change(wish) => wish.asked.call(),
        }
    }

    /// Sends it. One hypervisor goes alone, several go in bulk.
    pub(super) async fn open(&self, coordinator: &Coordinator) -> Result<Response<Updates>, Status> {
        let mut fleet = coordinator.fleet();
        let wish = match self {
            Self::Change(wish) => wish,
            Self::Watch { id, prefix } => {
                let request = fleet::WatchOperationRequest { id: id.to_string() };
                let response = fleet.watch_operation(request).await?;
                return Ok(response.map(|stream| Updates::Watch(stream, prefix.clone())));
            }
        };
        let mut operations = coordinator.operations();
        Ok(match &wish.asked {
            Asked::CreateHypervisors(ids) => match ids.as_slice() {
                [id] => {
                    let request = wish.request(CreateHypervisorRequest { id: id.to_string() });
                    operations.create_hypervisor(request).await?.map(Updates::Create)
                }
                ids => {
                    let ids = ids.iter().map(ToString::to_string).collect();
                    let request = wish.request(CreateHypervisorsRequest { ids });
                    operations
                        .create_hypervisors(request)
                        .await?
                        .map(Updates::CreateBulk)
                }
            },
            Asked::DestroyHypervisors(ids) => match ids.as_slice() {
                [id] => {
                    let request = wish.request(DestroyHypervisorRequest { id: id.to_string() });
                    operations
                        .destroy_hypervisor(request)
                        .await?
                        .map(Updates::Destroy)
                }
                ids => {
                    let ids = ids.iter().map(ToString::to_string).collect();
                    let request = wish.request(DestroyHypervisorsRequest { ids });
                    operations
                        .destroy_hypervisors(request)
                        .await?
                        .map(Updates::DestroyBulk)
                }
            },
            Asked::ExpandStorage(request) => {
                let request = wish.request(request.clone());
                fleet.expand_storage(request).await?.map(Updates::Expand)
            }
            Asked::ShrinkStorage(request) => {
                let request = wish.request(request.clone());
                fleet.shrink_storage(request).await?.map(Updates::Shrink)
            }
            Asked::CreateBackup(request) => {
                let request = wish.request(request.clone());
                fleet.create_backup(request).await?.map(Updates::BackUp)
            }
            Asked::VerifyBackup(request) => {
                let request = wish.request(request.clone());
                fleet.verify_backup(request).await?.map(Updates::Verify)
            }
            Asked::RestoreBackup(request) => {
                let request = wish.request(request.clone());
                fleet.restore_backup(request).await?.map(Updates::Restore)
            }
            Asked::DeleteBackup(request) => {
                let request = wish.request(request.clone());
                fleet.delete_backup(request).await?.map(Updates::Delete)
            }
        })
    }
}

/// An open stream.
pub(super) enum Updates {
    Create(Streaming<CreateHypervisorResponse>),
    CreateBulk(Streaming<CreateHypervisorsResponse>),
    Destroy(Streaming<DestroyHypervisorResponse>),
    DestroyBulk(Streaming<DestroyHypervisorsResponse>),
    Expand(Streaming<fleet::ExpandStorageResponse>),
    Shrink(Streaming<fleet::ShrinkStorageResponse>),
    BackUp(Streaming<fleet::CreateBackupResponse>),
    Verify(Streaming<fleet::VerifyBackupResponse>),
    Restore(Streaming<fleet::RestoreBackupResponse>),
    Delete(Streaming<fleet::DeleteBackupResponse>),
    Watch(Streaming<fleet::WatchOperationResponse>, String),
}

/// The messages of operations.v1 hold a state and words.
macro_rules! plain {
    ($stream:expr) => {
        $stream.message().await?.map(|it| Update::new(it.state, it.msg))
    };
}

/// Those about pools also say which operation it is, and how far.
macro_rules! measured {
    ($stream:expr) => {
        $stream.message().await?.map(|it| Update {
            operation: it.operation_id.parse().ok(),
            ..Update::new(it.state, words("", it.msg, it.measure.as_ref())).measured(it.measure)
        })
    };
}

impl Updates {
    /// The next news. `None`: the stream ended.
    pub(super) async fn next(&mut self) -> Result<Option<Update>, Status> {
        Ok(match self {
            Self::Create(stream) => plain!(stream),
            Self::CreateBulk(stream) => plain!(stream),
            Self::Destroy(stream) => plain!(stream),
            Self::DestroyBulk(stream) => plain!(stream),
            Self::Expand(stream) => measured!(stream),
            Self::Shrink(stream) => measured!(stream),
            Self::BackUp(stream) => measured!(stream),
            Self::Verify(stream) => measured!(stream),
            Self::Restore(stream) => measured!(stream),
            Self::Delete(stream) => measured!(stream),
            Self::Watch(stream, prefix) => {
                let message = stream.message().await?;
                message.map(|it| {
                    Update::new(it.state, words(prefix, it.msg, it.measure.as_ref()))
                        .measured(it.measure)
                        .at(it.ts)
                })
            }
        })
    }
}

/// What a message says. One that only measures need not have words.
fn words(prefix: &str, message: String, measure: Option<&Measure>) -> String {
    match measure {
        Some(measure) if message.is_empty() => format!("{prefix}{}", measure::text(measure)),
        Some(_) | None => format!("{prefix}{message}"),
    }
}

/// One piece of news.
#[derive(Debug, Clone)]
pub(super) struct Update {
    pub(super) state: OperationState,
    pub(super) message: String,
    /// RFC 3339: when it happened, or else when it arrived.
    pub(super) time: String,
    /// Set when it only says how far it is.
    pub(super) measure: Option<Measure>,
    /// The operation, where the message says it in a field of its own.
    pub(super) operation: Option<OperationId>,
}

impl Update {
    /// What arrived now.
    pub(super) fn new(state: i32, message: String) -> Self {
        Self::said(OperationState::of_wire(state), message)
    }

    /// What is said here and now.
    pub(super) fn said(state: OperationState, message: String) -> Self {
        Self {
            state,
            message,
            time: UnixMillis::now().to_string(),
            measure: None,
            operation: None,
        }
    }

    /// It says how far it is.
    fn measured(self, measure: Option<Measure>) -> Self {
        Self { measure, ..self }
    }

    /// It happened then, if it is known when.
    fn at(self, time: Option<Timestamp>) -> Self {
        Self {
            time: time.map_or(self.time, rfc3339),
            ..self
        }
    }

    /// Whether it is the last.
    pub(super) fn has_ended(&self) -> bool {
        match self.state {
            OperationState::Completed | OperationState::Failed => true,
            OperationState::Scheduled | OperationState::Active | OperationState::Unknown => false,
        }
    }
}
