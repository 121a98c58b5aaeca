//! From the lines of operations to the messages of a stream. Each is never empty, the last one is the end,
//! and the stream ends right after it (wire.md, points 2 to 4).

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::agent::v1::Measure;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::operations::v1 as rpc;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use super::status;
use crate::audit;

/// One message of a stream, of whatever rpc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Where it stands.
    pub state: rpc::OperationState,
    /// What happened.
    pub msg: String,
    /// Set when it only says how far the work is.
    pub measure: Option<Measure>,
    /// Of which operation. None when there is none.
    pub operation: Option<OperationId>,
}

impl Said {
    /// A message.
    pub fn new(state: rpc::OperationState, msg: impl Into<String>) -> Self {
        Self {
            state,
            msg: msg.into(),
            measure: None,
            operation: None,
        }
    }

    /// The end.
    pub fn is_end(&self) -> bool {
        matches!(
            self.state,
            rpc::OperationState::Completed | rpc::OperationState::Failed
        )
    }
}

/// What a handler hands to a stream.
pub type Talk = Pin<Box<dyn Stream<Item = Result<Said, Status>> + Send>>;

/// What tonic streams.
pub type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// A stream of one message: its end.
pub fn only(state: rpc::OperationState, msg: impl Into<String>) -> Talk {
    let said = Said::new(state, msg);
    // gRPC's code of a stream is OK however it ends.
    audit::said(&match state {
        rpc::OperationState::Failed => format!("FAILED: {}", said.msg),
        _ => said.msg.clone(),
    });
    Box::pin(stream::once(std::future::ready(Ok(said))))
}

/// The response that streams `talk`, cut at `shutdown`.
pub fn respond<R: From<Said> + 'static>(talk: Talk, shutdown: CancellationToken) -> Response<Responses<R>> {
    cut(talk.map(|said| said.map(R::from)), shutdown)
}

/// The response that streams `items`, cut with UNAVAILABLE at `shutdown`.
pub fn cut<R, S>(items: S, shutdown: CancellationToken) -> Response<Responses<R>>
where
    R: 'static,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
{
    let state = Some((Box::pin(items), shutdown));
    Response::new(Box::pin(stream::unfold(state, |state| async move {
        let (mut items, shutdown) = state?;
        // Cancel-safe: the stream keeps its state across polls of `next`. What is there already is still said.
        let item = tokio::select! {
            biased;
            item = items.next() => item?,
            () = shutdown.cancelled() => return Some((Err(status::ending()), None)),
        };
        Some((item, Some((items, shutdown))))
    })))
}

macro_rules! responses {
    ($($name:ident),*) => {
        $(impl From<Said> for rpc::$name {
            fn from(said: Said) -> Self {
                Self { state: said.state.into(), msg: said.msg }
            }
        })*
    };
}

responses!(
    CreateHypervisorResponse,
    CreateHypervisorsResponse,
    DestroyHypervisorResponse,
    DestroyHypervisorsResponse,
    ExpandStorageResponse,
    ShrinkStorageResponse,
    CreateBackupResponse
);

macro_rules! fleet_responses {
    ($($name:ident),*) => {
        $(impl From<Said> for fleet::$name {
            fn from(said: Said) -> Self {
                Self {
                    state: said.state.into(),
                    msg: said.msg,
                    measure: said.measure,
                    operation_id: said.operation.map(|id| id.to_string()).unwrap_or_default(),
                }
            }
        })*
    };
}

fleet_responses!(
    ExpandStorageResponse,
    ShrinkStorageResponse,
    CreateBackupResponse,
    VerifyBackupResponse,
    RestoreBackupResponse,
    DeleteBackupResponse
);
