//! Asking for a certificate until the coordinator is there: away and busy are waited for, a refusal is not.
//!
//! It touches no file. The invariant: every wait is told, bounded, and ended by Ctrl-C.

use std::io::Write;
use std::time::{Duration, Instant};

use hostler_common::error::Chain;
use hostler_common::retry::Waits;
use hostler_common::rpc::hostler::enrol::v1::EnrolResponse;
use hostler_pki::{CoordinatorAddress, EnrolToken};
use tokio_util::sync::CancellationToken;

use super::EnrolError;
use super::call::{CallError, call};

/// Between two tries: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// There is no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// Why.
    pub(super) error: EnrolError,
    /// Whether one of the tries may have used the token up for our key, which is worth keeping then.
    pub(super) may_have_counted: bool,
}

/// What is asked for, and how patiently.
pub(super) struct Question<'a> {
    pub(super) address: &'a CoordinatorAddress,
    pub(super) token: &'a EnrolToken,
    pub(super) csr_der: &'a [u8],
    /// No try begins later than this after the first.
    pub(super) wait: Duration,
    pub(super) stop: &'a CancellationToken,
}

impl Question<'_> {
    /// Asks. Each wait is told to `told`.
    pub(super) async fn ask(&self, told: &mut impl Write) -> Result<EnrolResponse, Unanswered> {
        let begun = Instant::now();
        let mut waits = Waits::new(FIRST_WAIT, LONGEST_WAIT);
        let mut may_have_counted = false;
        loop {
            let tried = self
                .stop
                .run_until_cancelled(call(self.address, self.token, self.csr_der));
            let Some(tried) = tried.await else {
                // It was on its way.
                return Err(interrupted(true));
            };
            let error = match tried {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            may_have_counted |= error.may_have_counted();
            let (left, wait) = (self.wait.saturating_sub(begun.elapsed()), waits.next_wait());
            if !error.passes_by_itself() || wait >= left {
                return Err(Unanswered {
                    error: self.given_up(error),
                    may_have_counted,
                });
            }
            // Nobody reads it, perhaps; it is tried again all the same.
            let _ = writeln!(
                told,
                "hostler-agent: {}; trying again, for {} s more",
                Chain(&error),
                left.as_secs()
            );
            let waited = self.stop.run_until_cancelled(tokio::time::sleep(wait));
            if waited.await.is_none() {
                return Err(interrupted(may_have_counted));
            }
        }
    }

    fn given_up(&self, source: CallError) -> EnrolError {
        match source.passes_by_itself() && !self.wait.is_zero() {
            true => EnrolError::Away {
                waited: self.wait,
                source,
            },
            false => EnrolError::Call { source },
        }
    }
}

fn interrupted(may_have_counted: bool) -> Unanswered {
    Unanswered {
        error: EnrolError::Interrupted,
        may_have_counted,
    }
}
