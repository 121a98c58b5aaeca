//! Delivers committed events to whoever watches. Never blocks a commit: who is too slow is told so.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::Event;

/// Transactions that a watcher may be behind before it has lagged. They are shared by all watchers, and the
/// mirror, which alone watches for long, takes them at once.
const BEHIND_AT_MOST: usize = 2048;

/// Hands out watches and publishes to them.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    events: broadcast::Sender<Arc<Event>>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            events: broadcast::channel(BEHIND_AT_MOST).0,
        }
    }

    pub(super) fn publish(&self, event: Event) {
        // An error means that nobody watches.
        let _ = self.events.send(Arc::new(event));
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }
}

/// The watcher missed events. It lists again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

/// Every transaction from the moment of the subscription.
#[derive(Debug)]
pub struct Watch {
    pub(super) events: broadcast::Receiver<Arc<Event>>,
}

impl Watch {
    /// The next event; None when the store is closed. Cancel-safe.
    ///
    /// # Errors
    /// [`Lagged`] when events were missed.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, Lagged> {
        match self.events.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(_)) => Err(Lagged),
        }
    }
}
