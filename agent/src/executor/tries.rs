//! One call of a step, tried again where its error allows it.
//!
//! It never tries again what is lost: a call that outlived its deadline still runs. Nor does another try begin under a
//! lease that has run out.

use std::time::Duration;

use hostler_common::error::Retry;
use hostler_common::retry::Waits;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cancel::Cancel;
use super::leave::Leave;
use super::step::StepError;
use crate::blocking::{Blocking, BlockingFault};

/// How often a call that certainly did nothing is made.
const LATER_TRIES: u32 = 3;
/// How often a call that may have done something is made: steps are idempotent, so once more shows.
const READ_BACK_TRIES: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried<T> {
    /// It succeeded.
    Good(T),
    /// It failed, and trying again is no use. One line.
    Failed(String),
    /// It did not return in time. One line.
    Lost(String),
    /// Somebody cancelled the operation: the call stopped, or is not made again. One line.
    Cancelled(String),
    /// The operation is to stop here.
    Halted,
}

/// One call of a step: what it is and how long it may take.
pub struct Call<'a> {
    /// For people, as in the plan.
    pub what: &'a str,
    /// For one try.
    pub deadline: Duration,
    /// As long as this, what may be tried again is, however often.
    pub patience: Duration,
    /// Until when another try may begin.
    pub leave: Leave,
}

impl Call<'_> {
    /// Makes the call up to three times, or as often as its patience allows. `say` hears about every further try.
    pub async fn make<T, F>(
        &self,
        blocking: &Blocking,
        halt: &CancellationToken,
        mut cancel: Cancel,
        say: impl Fn(String),
        call: F,
    ) -> Tried<T>
    where
        T: Send + 'static,
        F: Fn() -> Result<T, StepError> + Clone + Send + 'static,
    {
        let mut waits = Waits::new(FIRST_WAIT, LONGEST_WAIT);
        let mut leave = self.leave.clone();
        let mut tries = 0;
        let began = Instant::now();
        loop {
            tries += 1;
            let (cause, retry) = match blocking.run(self.what, self.deadline, call.clone()).await {
                Ok(Ok(value)) => return Tried::Good(value),
                Ok(Err(error)) if error.is_cancelled() => return Tried::Cancelled(error.to_string()),
                Ok(Err(error)) => (error.to_string(), error.retry()),
                Err(fault @ BlockingFault::TimedOut { .. }) => return Tried::Lost(fault.to_string()),
                Err(fault @ BlockingFault::Panicked { .. }) => return Tried::Failed(fault.to_string()),
                Err(fault @ BlockingFault::Full { .. }) => (fault.to_string(), Retry::Later),
            };
            let at_most = match retry {
                Retry::Never => 1,
                Retry::Later => LATER_TRIES,
                Retry::ReadBack => READ_BACK_TRIES,
            };
            let patient = retry != Retry::Never && began.elapsed() < self.patience;
            if tries >= at_most && !patient {
                return Tried::Failed(cause);
            }
            say(match tries < at_most {
                true => format!("{}: {cause}; try {} of {at_most} follows", self.what, tries + 1),
                false => format!(
                    "{}: {cause}; tried again for up to {:?}",
                    self.what, self.patience
                ),
            });
            let due = async {
                tokio::time::sleep(waits.next_wait()).await;
                leave.given().await;
            };
            // Cancel-safe: all arms only wait.
            tokio::select! {
                biased;
                () = halt.cancelled() => return Tried::Halted,
                by = cancel.heard() => return Tried::Cancelled(StepError::cancelled(&by).to_string()),
                () = due => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::leave;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_try_waits_until_the_lease_is_renewed() {
        let (granter, leave) = leave::channel(Instant::now());
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        let mut making = tokio::spawn(async move {
            let call = Call {
                what: "make network",
                deadline: Duration::from_secs(10),
                patience: Duration::ZERO,
                leave,
            };
            let halt = CancellationToken::new();
            let once_more = move || match counted.fetch_add(1, Ordering::SeqCst) {
                0 => Err(StepError::message("not now", Retry::Later)),
                _ => Ok(()),
            };
            call.make(&Blocking::new(1), &halt, Cancel::never(), |_| (), once_more)
                .await
        });
        let early = tokio::time::timeout(Duration::from_secs(3600), &mut making).await;
        assert!(early.is_err(), "nobody renewed it");
        assert_eq!(tries.load(Ordering::SeqCst), 1);
        granter.until(Instant::now() + Duration::from_secs(30));
        assert_eq!(making.await.unwrap(), Tried::Good(()));
    }
}
