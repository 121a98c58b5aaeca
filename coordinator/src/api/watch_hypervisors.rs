//! `WatchHypervisors`: the whole fleet, then its changes, at the reader's pace.
//!
//! Invariant: what the client was shown last of each hypervisor becomes true of the list, and what it was never shown
//! is never gone.

use std::collections::BTreeSet;

use futures_util::stream;
use hostler_common::id::{HypervisorId, ResourceName};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::watch_hypervisors_response::Event;
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
    /// What the client takes for enrolled.
    shown: BTreeSet<HypervisorId>,
}

enum Walk {
    /// The next one to show is the one after this id.
    After(Option<HypervisorId>),
    /// All have been shown again; these are not there any more.
    Gone(Vec<HypervisorId>),
    /// All have been shown; now changes.
    Done,
}

impl Watcher {
    async fn next(&mut self) -> Result<rpc::WatchHypervisorsResponse, Status> {
        loop {
            if let Some(event) = self.walked() {
                return Ok(rpc::WatchHypervisorsResponse { event: Some(event) });
            }
            // Cancel-safe: a broadcast receiver keeps what it has not yielded.
            let change = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(status::ending()),
                change = self.changes.recv() => change,
            };
            let event = match change {
                Ok(Change::Hypervisor(id)) => self.as_it_is(id),
                // Until when a client holds it is part of why.
                Ok(Change::Operation(resource)) if self.is_held(&resource) => {
                    self.as_it_is(HypervisorId::from(&resource))
                }
                Ok(Change::Pool(_) | Change::Operation(_) | Change::Host(_)) => None,
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                    self.walk = Walk::After(None);
                    None
                }
                Err(RecvError::Closed) => return Err(status::ending()),
            };
            if event.is_some() {
                return Ok(rpc::WatchHypervisorsResponse { event });
            }
        }
    }

    /// The next event of a walk over the whole fleet. None when there is none.
    fn walked(&mut self) -> Option<Event> {
        if let Walk::After(after) = &self.walk {
            let read = |view: &HypervisorView<'_>| (view.record.id.clone(), view.to_rpc());
            if let Some((id, hypervisor)) = self.registry.hypervisor_after(after.as_ref(), read) {
                self.shown.insert(id.clone());
                self.walk = Walk::After(Some(id));
                return Some(Event::Hypervisor(hypervisor));
            }
            let is_gone = |id: &&HypervisorId| self.registry.hypervisor(id, |_| ()).is_none();
            self.walk = Walk::Gone(self.shown.iter().filter(is_gone).cloned().collect());
        }
        while let Walk::Gone(gone) = &mut self.walk {
            let Some(id) = gone.pop() else {
                self.walk = Walk::Done;
                break;
            };
            if let Some(event) = self.as_it_is(id) {
                return Some(event);
            }
        }
        let first = !std::mem::replace(&mut self.synced, true);
        first.then_some(Event::Synced(rpc::Synced {}))
    }

    /// How a hypervisor is now. None when the client knows nothing else.
    fn as_it_is(&mut self, id: HypervisorId) -> Option<Event> {
        if let Some(hypervisor) = self.registry.hypervisor(&id, |view| view.to_rpc()) {
            self.shown.insert(id);
            return Some(Event::Hypervisor(hypervisor));
        }
        let id = self.shown.take(&id)?.to_string();
        Some(Event::Gone(rpc::Gone { id }))
    }

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
        shown: BTreeSet::new(),
    };
    Box::pin(stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let goes_on = next.is_ok();
        Some((next, goes_on.then_some(watcher)))
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use hostler_common::units::UnixMillis;
    use tempfile::TempDir;
    use tokio::task::JoinSet;

    use super::*;
    use crate::operation::locks;
    use crate::registry::{self, HypervisorRecord, Kind, Observed};
    use crate::store::{Committed, Store, Transaction, Write, json};

    fn record(id: &str) -> Write {
        let record = HypervisorRecord {
            id: id.parse().unwrap(),
            host: "h1".parse().unwrap(),
            kind: Kind::Host,
            observed: Observed::OutOfService,
            detail: String::new(),
            inventory: Default::default(),
            enrolled_at: UnixMillis(0),
            changed_at: UnixMillis(0),
        };
        json::put(HypervisorRecord::key(&record.id), &record)
    }

    fn removed(id: &str) -> Write {
        let key = HypervisorRecord::key(&id.parse().unwrap());
        Write::Delete { key }
    }

    async fn commit(store: &Store, registry: &Registry, writes: Vec<Write>) {
        let compares = Vec::new();
        let committed = store.commit(Transaction { compares, writes }).await.unwrap();
        let Committed::At(revision) = committed else {
            panic!("nothing was compared")
        };
        registry.taken(revision).await;
    }

    async fn next(events: &mut Responses<rpc::WatchHypervisorsResponse>) -> String {
        match events.next().await.unwrap().unwrap().event.unwrap() {
            Event::Hypervisor(it) => it.id,
            Event::Synced(_) => "synced".to_owned(),
            Event::Gone(it) => format!("{} is gone", it.id),
        }
    }

    #[tokio::test]
    async fn what_was_shown_and_is_gone_is_told_once_also_to_a_slow_reader() {
        let (directory, mut tasks) = (TempDir::new().unwrap(), JoinSet::new());
        let store = Store::open(directory.path()).unwrap();
        let registry = registry::spawn(store.clone(), None, &mut tasks).await.unwrap();
        let start = ["hv1", "hv2", "hv3"].map(record).to_vec();
        commit(&store, &registry, start).await;
        let mut events = watch(registry.clone(), CancellationToken::new());
        assert_eq!(next(&mut events).await, "hv1");
        // One that was shown, one that was not.
        commit(&store, &registry, ["hv1", "hv2"].map(removed).to_vec()).await;
        for expected in ["hv3", "hv1 is gone", "synced"] {
            assert_eq!(next(&mut events).await, expected);
        }
        // More changes than it may be behind.
        let other = |number| Write::Delete {
            key: format!("{}other-{number}", locks::PREFIX),
        };
        let mut many: Vec<_> = (0..3000).map(other).collect();
        many.extend([removed("hv3"), record("hv4")]);
        commit(&store, &registry, many).await;
        for expected in ["hv4", "hv3 is gone"] {
            assert_eq!(next(&mut events).await, expected);
        }
        commit(&store, &registry, vec![record("hv3")]).await;
        loop {
            // The change to hv4 is still to come.
            match next(&mut events).await.as_str() {
                "hv4" => {}
                told => break assert_eq!(told, "hv3"),
            }
        }
    }
}
