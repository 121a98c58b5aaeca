//! The stream of hypervisors: everything once, then changes.

use std::collections::BTreeMap;

use hostler_common::rpc::hostler::fleet::v1::watch_hypervisors_response::Event;
use hostler_common::rpc::hostler::fleet::v1::{WatchHypervisorsRequest, WatchHypervisorsResponse};
use tonic::{Status, Streaming};

use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::view::Hypervisor;

/// The call of this file.
pub(super) const WATCH: Call = Call::read("WatchHypervisors");

/// Hypervisors by id.
pub(super) type Fleet = BTreeMap<String, Hypervisor>;

/// Something changed.
pub(super) enum Change {
    /// A hypervisor as it is now.
    Is(Box<Hypervisor>),
    /// The one with this id is no longer enrolled.
    Gone(String),
}

/// An open stream.
pub(super) struct News(Streaming<WatchHypervisorsResponse>);

impl News {
    /// The next change. `None`: the stream ended.
    pub(super) async fn next(&mut self) -> Result<Option<Change>, Status> {
        loop {
            match self.0.message().await? {
                Some(WatchHypervisorsResponse {
                    event: Some(Event::Hypervisor(it)),
                }) => return Ok(Some(Change::Is(Box::new(it.into())))),
                Some(WatchHypervisorsResponse {
                    event: Some(Event::Gone(it)),
                }) => return Ok(Some(Change::Gone(it.id))),
                // A second mark, which may follow when the fleet is sent again in mid-stream, or an event of a
                // later version.
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}

/// Everything as it is now, and the stream of what follows.
///
/// # Errors
/// When it does not come whole within the limit for an answer.
pub(super) async fn read(coordinator: &Coordinator) -> Result<(Fleet, News), Failure> {
    let whole = async {
        let mut client = coordinator.fleet();
        let mut stream = client
            .watch_hypervisors(WatchHypervisorsRequest {})
            .await?
            .into_inner();
        let mut fleet = Fleet::new();
        loop {
            match stream.message().await? {
                Some(WatchHypervisorsResponse {
                    event: Some(Event::Hypervisor(it)),
                }) => {
                    fleet.insert(it.id.clone(), it.into());
                }
                Some(WatchHypervisorsResponse {
                    event: Some(Event::Gone(it)),
                }) => {
                    fleet.remove(&it.id);
                }
                Some(WatchHypervisorsResponse {
                    event: Some(Event::Synced(_)),
                }) => {
                    return Ok(tonic::Response::new((fleet, News(stream))));
                }
                Some(WatchHypervisorsResponse { event: None }) => {}
                // A list that is not whole must never be taken for one.
                None => return Err(Status::unavailable("the list ended before it was whole")),
            }
        }
    };
    coordinator.answer(WATCH, whole).await
}
