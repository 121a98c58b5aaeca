//! The one place for calls that block: libvirt, external programs, file systems that may hang.
//!
//! It never cancels a call, since a thread cannot be. A call that outlives its deadline goes on and keeps its
//! place until it really returns, so that what hangs can take all places but never more threads than there are
//! places.
//!
//! A simulation has no threads: [`Blocking::in_place`] makes each call at one instant of the simulated time, and lets
//! time pass before and after it. All else is the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Retry;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// The places for steps. An agent runs 32 operations at once (`session::desk::RUNNING_BOUND`), each one step at
/// a time, and a step may wait long for something else (readiness, draining, programs): each has a place of its
/// own, and half as many are left for calls that outlived their deadline.
pub const PLACES: usize = 48;

/// Runs blocking calls on threads of their own, a bounded number at a time.
#[derive(Debug, Clone)]
pub struct Blocking {
    places: Arc<Semaphore>,
    at_most: usize,
    calls: Calls,
}

/// Where calls run.
#[derive(Clone)]
enum Calls {
    OnThreads,
    InPlace(Pace, CancellationToken),
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnThreads => "OnThreads",
            Self::InPlace(..) => "InPlace",
        })
    }
}

/// How long a simulated call waits before it happens, and how long until it returns then. It is asked by the call's
/// name.
pub type Pace = Arc<dyn Fn(&str) -> (Duration, Duration) + Send + Sync>;

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
            calls: Calls::OnThreads,
        }
    }

    /// The same without threads, for simulations. `killed` is the end of the simulated process: what has not happened
    /// by then never does.
    pub fn in_place(at_most: usize, pace: Pace, killed: CancellationToken) -> Self {
        Self {
            calls: Calls::InPlace(pace, killed),
            ..Self::new(at_most)
        }
    }

    /// Another one, whose calls run where these do.
    #[must_use]
    pub fn like(&self, at_most: usize) -> Self {
        Self {
            calls: self.calls.clone(),
            ..Self::new(at_most)
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
        match timeout_at(until, self.calls.begin(what(), place, call)).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(BlockingFault::Panicked { what: what() }),
            Err(_) => Err(BlockingFault::TimedOut {
                what: what(),
                deadline,
            }),
        }
    }
}

impl Calls {
    fn begin<T: Send + 'static>(
        &self,
        what: String,
        place: OwnedSemaphorePermit,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match self {
            #[allow(clippy::disallowed_methods, reason = "this is the one bounded place")]
            Self::OnThreads => tokio::task::spawn_blocking(move || {
                let _place = place;
                call()
            }),
            Self::InPlace(pace, killed) => {
                let ((before, after), killed) = (pace(&what), killed.clone());
                // A task of its own: like a thread, it goes on when nobody waits any more.
                tokio::spawn(async move {
                    let _place = place;
                    let lasting = async {
                        sleep(before).await;
                        let result = call();
                        sleep(after).await;
                        result
                    };
                    match killed.run_until_cancelled_owned(lasting).await {
                        Some(result) => result,
                        // Whoever waited is dead too.
                        None => std::future::pending().await,
                    }
                })
            }
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

    #[tokio::test(start_paused = true)]
    async fn a_call_in_place_takes_simulated_time_and_none_happens_after_the_kill() {
        let killed = CancellationToken::new();
        let pace: Pace = Arc::new(|_| (Duration::from_secs(2), Duration::from_secs(3)));
        let blocking = Blocking::in_place(1, pace, killed.clone());
        let begun = Instant::now();
        assert_eq!(blocking.run("sum", LONG, || 1 + 1).await, Ok(2));
        assert_eq!(begun.elapsed(), Duration::from_secs(5));

        let (made, making) = mpsc::channel();
        let slow = made.clone();
        let late = blocking
            .run("slow", Duration::from_secs(1), move || slow.send("slow").unwrap())
            .await;
        assert!(matches!(late, Err(BlockingFault::TimedOut { .. })));
        let full = blocking.run("next", Duration::from_secs(1), || ()).await;
        assert!(
            matches!(full, Err(BlockingFault::Full { .. })),
            "it keeps its place"
        );
        sleep(Duration::from_secs(3)).await;
        assert_eq!(making.try_recv(), Ok("slow"), "it happened all the same");

        let waiting = tokio::spawn(async move {
            blocking
                .run("never", LONG, move || made.send("never").unwrap())
                .await
        });
        sleep(Duration::from_secs(1)).await;
        killed.cancel();
        sleep(LONG * 2).await;
        assert!(making.try_recv().is_err());
        waiting.abort();
    }
}
