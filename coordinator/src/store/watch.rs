//! Delivers committed events to whoever watches. Never blocks a commit: who is too slow is told so.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::Event;

/// Events that a watcher may be behind before it has lagged. They are shared by all watchers: at about
/// 2 KiB a value, a few MiB at the very most.
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

/// Events of keys under a prefix, from the moment of the subscription.
#[derive(Debug)]
pub struct Watch {
    pub(super) events: broadcast::Receiver<Arc<Event>>,
    pub(super) prefix: String,
}

impl Watch {
    /// The next event; None when the store is closed. Cancel-safe.
    ///
    /// # Errors
    /// [`Lagged`] when events were missed.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, Lagged> {
        loop {
            match self.events.recv().await {
                Ok(event) if event.key.starts_with(&self.prefix) => {
                    return Ok(Some(event));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
                Err(broadcast::error::RecvError::Lagged(_)) => return Err(Lagged),
            }
        }
    }
}
