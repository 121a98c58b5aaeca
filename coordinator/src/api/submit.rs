//! From a request to its operation and the stream that follows it: the one path of everything that changes
//! something. When it returns, what it took is durable.

use futures_util::StreamExt as _;
use hostler_common::operation::pack;
use hostler_common::rpc::operations::v1::OperationState;
use prost::Name;
use prost_types::Any;
use tonic::{Request, Status};

use super::listener::Peer;
use super::pool::{self, OnPool};
use super::progress::{Said, Talk, only};
use super::status;
use crate::audit;
use crate::operation::engine::Engine;
use crate::operation::watch::{News, Start, follow};
use crate::operation::wish::{Asked, Asker, Submitted, Wanted};
use crate::registry::Registry;

/// The longest stored reason, in characters.
const REASON_AT_MOST: usize = 500;

/// Metadata that carries why somebody asks, UTF-8.
const REASON_KEY: &str = "hostler-reason-bin";

/// The largest request, in bytes. It is stored again with each line of its operation's log.
const REQUEST_AT_MOST: usize = 32 * 1024;

/// Who calls, and why.
pub(super) fn asker<T>(request: &Request<T>) -> Result<Asker, Status> {
    let reason = request
        .metadata()
        .get_bin(REASON_KEY)
        .and_then(|value| value.to_bytes().ok())
        .map(|bytes| reason(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default();
    Ok(Asker {
        identity: Peer::of(request)?.identity.to_string(),
        reason,
    })
}

/// A reason as it is stored.
pub(super) fn reason(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(REASON_AT_MOST)
        .collect()
}

/// Refuses what is too long to be stored again with each line.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(super) fn bounded(received: &Any) -> Result<(), Status> {
    match received.value.len() {
        0..=REQUEST_AT_MOST => Ok(()),
        bytes => Err(Status::invalid_argument(format!(
            "the request has {bytes} bytes; at most {REQUEST_AT_MOST} are allowed; of many files name their directories"
        ))),
    }
}

/// What `message` asks for.
///
/// # Errors
/// INVALID_ARGUMENT when it makes no sense.
pub(super) fn asked<M: Name>(message: &M) -> Result<Asked, Status> {
    let received = pack(message);
    bounded(&received)?;
    Asked::new(received).map_err(|error| status::of_request(&error))
}

/// Takes wishes to the engine.
#[derive(Debug, Clone)]
pub(super) struct Submit {
    engine: Engine,
    registry: Registry,
}

impl Submit {
    pub(super) fn new(engine: &Engine, registry: &Registry) -> Self {
        Self {
            engine: engine.clone(),
            registry: registry.clone(),
        }
    }

    /// One talk for each wish. All of them are stored in one commit.
    pub(super) async fn all(&self, wishes: &[Wanted], asker: &Asker) -> Result<Vec<Talk>, Status> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let submitted = self.engine.submit(wishes, asker).await;
        let submitted = submitted.map_err(|error| status::of_engine(&error))?;
        Ok(submitted
            .into_iter()
            .map(|submitted| self.talk(submitted, asker))
            .collect())
    }

    /// The talk of an operation on a pool.
    pub(super) async fn on_pool<M: OnPool>(&self, message: &M, asker: &Asker) -> Result<Talk, Status> {
        match pool::wanted(&self.registry, message)? {
            Ok(wanted) => {
                let mut talks = self.all(&[wanted], asker).await?;
                talks.pop().ok_or_else(|| Status::internal("a wish was lost"))
            }
            Err(no_pool) => Ok(only(OperationState::Failed, no_pool.to_string())),
        }
    }

    fn talk(&self, submitted: Submitted, asker: &Asker) -> Talk {
        let (id, from) = match submitted {
            Submitted::Refused(why) => return only(OperationState::Failed, why),
            Submitted::Attached(id) => {
                audit::said(&format!("follows operation {id}, which was asked for before"));
                (id, Start::Attach)
            }
            Submitted::New(record) => {
                audit::made(record.id);
                tracing::info!(
                    operation = %record.id, resource = %record.resource, kind = record.kind.name(),
                    by = asker.identity, reason = asker.reason, "accepted"
                );
                (record.id, Start::First)
            }
        };
        let said = move |news: News| Said {
            state: news.state,
            msg: news.message,
            measure: news.measure,
            operation: Some(id),
        };
        let news = follow(self.engine.clone(), self.registry.clone(), id, from);
        Box::pin(news.map(move |news| news.map(said).map_err(|error| status::of_engine(&error))))
    }
}
