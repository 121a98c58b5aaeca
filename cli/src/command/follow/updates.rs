//! One shape for the five streams that tell of operations. It opens and reads them, and decides nothing.

use hostler_common::id::{HypervisorId, OperationId};
use hostler_common::operation::OperationKind;
use hostler_common::rpc::hostler::fleet::v1::{WatchOperationRequest, WatchOperationResponse};
use hostler_common::rpc::operations::v1::{
    CreateHypervisorRequest, CreateHypervisorResponse, CreateHypervisorsRequest, CreateHypervisorsResponse,
    DestroyHypervisorRequest, DestroyHypervisorResponse, DestroyHypervisorsRequest,
    DestroyHypervisorsResponse,
};
use hostler_common::units::UnixMillis;
use prost_types::Timestamp;
use tonic::metadata::BinaryMetadataValue;
use tonic::{Response, Status, Streaming};

use crate::connect::{Call, Coordinator};
use crate::output::view::{OperationState, rfc3339};

/// A change that a person asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) kind: OperationKind,
    /// At least one.
    pub(crate) ids: Vec<HypervisorId>,
    pub(crate) reason: Option<String>,
}

impl Wish {
    /// As `create of hv1, hv2`.
    pub(super) fn words(&self) -> String {
        let ids: Vec<_> = self.ids.iter().take(5).map(HypervisorId::as_str).collect();
        let more = match self.ids.len().saturating_sub(5) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{} of {}{more}", self.kind.verb(), ids.join(", "))
    }

    /// The request with the reason beside it: binary metadata, since a reason may be in any language.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(reason) = self.reason.as_deref().filter(|reason| !reason.is_empty()) {
            request.metadata_mut().insert_bin(
                "hostler-reason-bin",
                BinaryMetadataValue::from_bytes(reason.as_bytes()),
            );
        }
        request
    }
}

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
            Self::Change(wish) => Call::change(match (wish.kind, wish.ids.as_slice()) {
                (OperationKind::CreateHypervisor, [_]) => "CreateHypervisor",
                (OperationKind::CreateHypervisor, _) => "CreateHypervisors",
                (OperationKind::DestroyHypervisor, [_]) => "DestroyHypervisor",
                (OperationKind::DestroyHypervisor, _) => "DestroyHypervisors",
            }),
        }
    }

    /// Sends it. One id goes alone, several go in bulk.
    pub(super) async fn open(&self, coordinator: &Coordinator) -> Result<Response<Updates>, Status> {
        let mut client = coordinator.operations();
        Ok(match self {
            Self::Watch { id, prefix } => {
                let request = WatchOperationRequest { id: id.to_string() };
                coordinator
                    .fleet()
                    .watch_operation(request)
                    .await?
                    .map(|stream| Updates::Watch(stream, prefix.clone()))
            }
            Self::Change(wish) => match (wish.kind, wish.ids.as_slice()) {
                (OperationKind::CreateHypervisor, [id]) => {
                    let request = wish.request(CreateHypervisorRequest { id: id.to_string() });
                    client.create_hypervisor(request).await?.map(Updates::Create)
                }
                (OperationKind::DestroyHypervisor, [id]) => {
                    let request = wish.request(DestroyHypervisorRequest { id: id.to_string() });
                    client.destroy_hypervisor(request).await?.map(Updates::Destroy)
                }
                (OperationKind::CreateHypervisor, ids) => {
                    let ids = ids.iter().map(ToString::to_string).collect();
                    let request = wish.request(CreateHypervisorsRequest { ids });
                    client.create_hypervisors(request).await?.map(Updates::CreateBulk)
                }
                (OperationKind::DestroyHypervisor, ids) => {
                    let ids = ids.iter().map(ToString::to_string).collect();
                    let request = wish.request(DestroyHypervisorsRequest { ids });
                    client
                        .destroy_hypervisors(request)
                        .await?
                        .map(Updates::DestroyBulk)
                }
            },
        })
    }
}

/// An open stream.
pub(super) enum Updates {
    Create(Streaming<CreateHypervisorResponse>),
    CreateBulk(Streaming<CreateHypervisorsResponse>),
    Destroy(Streaming<DestroyHypervisorResponse>),
    DestroyBulk(Streaming<DestroyHypervisorsResponse>),
    Watch(Streaming<WatchOperationResponse>, String),
}

impl Updates {
    /// The next news. `None`: the stream ended.
    pub(super) async fn next(&mut self) -> Result<Option<Update>, Status> {
        Ok(match self {
            Self::Create(stream) => stream
                .message()
                .await?
                .map(|it| Update::new(it.state, it.msg, None)),
            Self::CreateBulk(stream) => stream
                .message()
                .await?
                .map(|it| Update::new(it.state, it.msg, None)),
            Self::Destroy(stream) => stream
                .message()
                .await?
                .map(|it| Update::new(it.state, it.msg, None)),
            Self::DestroyBulk(stream) => stream
                .message()
                .await?
                .map(|it| Update::new(it.state, it.msg, None)),
            Self::Watch(stream, prefix) => {
                let message = stream.message().await?;
                message.map(|it| Update::new(it.state, format!("{prefix}{}", it.msg), it.ts))
            }
        })
    }
}

/// One piece of news.
#[derive(Debug, Clone)]
pub(super) struct Update {
    pub(super) state: OperationState,
    pub(super) message: String,
    /// RFC 3339: when it happened, or else when it arrived.
    pub(super) time: String,
}

impl Update {
    pub(super) fn new(state: i32, message: String, at: Option<Timestamp>) -> Self {
        let time = at.map_or_else(|| UnixMillis::now().to_string(), rfc3339);
        Self {
            state: OperationState::of_wire(state),
            message,
            time,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(reason: &str) -> Wish {
        let ids = (1..=7).map(|n| format!("hv{n}").parse().unwrap()).collect();
        Wish {
            kind: OperationKind::CreateHypervisor,
            ids,
            reason: Some(reason.into()),
        }
    }

    #[test]
    fn a_reason_in_any_language_arrives_unchanged() {
        for reason in ["disk swap", "Plattentausch für später", "two\nlines"] {
            let request = wish(reason).request(());
            let bytes = request
                .metadata()
                .get_bin("hostler-reason-bin")
                .unwrap()
                .to_bytes()
                .unwrap();
            assert_eq!(bytes, reason.as_bytes());
        }
        assert!(wish("").request(()).metadata().is_empty());
    }

    #[test]
    fn a_long_bulk_is_named_briefly() {
        assert_eq!(wish("").words(), "create of hv1, hv2, hv3, hv4, hv5 and 2 more");
    }
}
