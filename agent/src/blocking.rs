//! The one place for calls that block: libvirt, external programs, file systems that may hang.
//!
//! It never cancels a call, since a thread cannot be. A call that outlives its deadline goes on and keeps its
//! place until it really returns, so that what hangs can take all places but never more threads than there are
//! places.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Retry;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// The places for steps. An agent runs 32 operations at once (`session::desk::RUNNING_BOUND`), each one step at
/// a time, and a step may wait long for something else (readiness, draining, programs): each has a place of its
/// own, and half as many are left for calls that outlived their deadline.
pub const PLACES: usize = 48;

/// Runs blocking calls on threads of their own, a bounded number at a time.
#[derive(Debug, Clone)]
pub struct Blocking {
    places: Arc<Semaphore>,
    at_most: usize,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockingFault {
    /// It still runs.
    #[error("{what} took longer than {deadline:?} and still runs; its outcome is unknown")]
    TimedOut {
        /// The call.
        what: String,
        /// Its deadline.
        deadline: Duration,
    },
    /// It never ran: every place was taken for the whole deadline.
    #[error("{what} did not begin within {deadline:?}: {at_most} other calls are running")]
    Full {
        /// The call.
        what: String,
        /// Its deadline.
        deadline: Duration,
        /// How many places there are.
        at_most: usize,
    },
    /// It panicked, or the process is ending.
    #[error("{what} panicked; this is a bug, please report it with the log")]
    Panicked {
        /// The call.
        what: String,
    },
}

impl BlockingFault {
    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::TimedOut { .. } | Self::Panicked { .. } => Retry::ReadBack,
            Self::Full { .. } => Retry::Later,
        }
    }
}

impl Default for Blocking {
    fn default() -> Self {
        Self::new(PLACES)
    }
}

impl Blocking {
    /// With room for `at_most` calls at a time.
    pub fn new(at_most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_most)),
            at_most,
        }
    }

    /// Runs `call`, which `what` names for people. `deadline` covers the wait for a place too.
    ///
    /// # Errors
    /// When there is no result within `deadline`, or `call` panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingFault> {
        let what = || what.to_owned();
        let until = Instant::now() + deadline;
        let Ok(Ok(place)) = timeout_at(until, self.places.clone().acquire_owned()).await else {
            return Err(BlockingFault::Full {
                what: what(),
                deadline,
                at_most: self.at_most,
            });
        };
        #[allow(clippy::disallowed_methods, reason = "this is the one bounded place")]
        let running = tokio::task::spawn_blocking(move || {
            let _place = place;
            call()
        });
        match timeout_at(until, running).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(BlockingFault::Panicked { what: what() }),
            Err(_) => Err(BlockingFault::TimedOut {
                what: what(),
                deadline,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_call_returns_its_value() {
        let blocking = Blocking::new(1);
        assert_eq!(blocking.run("sum", LONG, || 1 + 1).await, Ok(2));
    }

    #[tokio::test]
    async fn a_call_that_timed_out_keeps_its_place_until_it_returns() {
        let blocking = Blocking::new(1);
        let (release, held) = mpsc::channel::<()>();
        let stuck = blocking
            .run("stuck", SOON, move || {
                let _ = held.recv();
            })
            .await;
        assert!(matches!(&stuck, Err(BlockingFault::TimedOut { what, .. }) if what == "stuck"));
        assert_eq!(stuck.unwrap_err().retry(), Retry::ReadBack);

        let full = blocking.run("next", SOON, || ()).await.unwrap_err();
        assert!(matches!(full, BlockingFault::Full { at_most: 1, .. }), "{full}");
        assert_eq!(full.retry(), Retry::Later);

        release.send(()).unwrap();
        assert_eq!(blocking.run("after", LONG, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_its_place() {
        let blocking = Blocking::new(1);
        let fault = blocking.run("bad", LONG, || panic!("on purpose")).await;
        assert_eq!(
            fault,
            Err::<(), _>(BlockingFault::Panicked { what: "bad".into() })
        );
        assert_eq!(blocking.run("good", LONG, || 3).await, Ok(3));
    }
}
