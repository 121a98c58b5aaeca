//! `WatchHypervisors`: the whole fleet, then its changes, at the reader's pace.

use futures_util::stream;
use hostler_common::id::{HypervisorId, ResourceName};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::progress::Responses;
use super::status;
use crate::operation::state::Operator;
use crate::registry::{Change, HypervisorView, Registry};

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
                biased;
                () = self.shutdown.cancelled() => return Err(status::ending()),
                change = self.changes.recv() => change,
            };
            match change {
                Ok(Change::Hypervisor(id)) => {
                    if let Some(hypervisor) = self.registry.hypervisor(&id, |view| view.to_rpc()) {
                        return show(Event::Hypervisor(hypervisor));
                    }
                }
                // Until when a client holds it is part of why.
                Ok(Change::Operation(resource)) if self.is_held(&resource) => {
                    let id = HypervisorId::from(&resource);
                    if let Some(hypervisor) = self.registry.hypervisor(&id, |view| view.to_rpc()) {
                        return show(Event::Hypervisor(hypervisor));
                    }
                }
                Ok(Change::Pool(_) | Change::Operation(_) | Change::Host(_)) => {}
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => self.walk = Walk::After(None),
                Err(RecvError::Closed) => return Err(status::ending()),
            }
        }
    }
}

impl Watcher {
    fn is_held(&self, resource: &ResourceName) -> bool {
        let turn = self.registry.turn(resource);
        turn.is_some_and(|(record, _)| record.operator() == Operator::Client)
    }
}

/// Every hypervisor, then each change, until `shutdown`.
pub(super) fn watch(
    registry: Registry,
    shutdown: CancellationToken,
) -> Responses<rpc::WatchHypervisorsResponse> {
    // Subscribed before the fleet is walked, so that no change falls between.
    let watcher = Watcher {
        changes: registry.changes(),
        registry,
        shutdown,
        walk: Walk::After(None),
        synced: false,
    };
    Box::pin(stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let goes_on = next.is_ok();
        Some((next, goes_on.then_some(watcher)))
    }))
}
