//! Looks whether a connection's certificate is over, revoked, or of a CA that was dropped. TLS asks once, in the handshake;
//! a connection may outlive the answer.
//!
//! It ends nothing itself. The invariant: whoever it says is over is over by the wall clock or by somebody's word, never by a
//! timer alone.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hostler_common::units::UnixMillis;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::identity::connections::{Cut, Life};

/// How often the wall clock is looked at: timers do not follow when somebody sets it.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Of one connection.
#[derive(Debug)]
pub(super) struct Watchman {
    life: Life,
    next_look: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Watchman {
    /// Of a connection with `life`.
    pub(super) fn over(life: Life) -> Self {
        let left = UnixMillis::now().until(life.over_at());
        Self {
            next_look: Box::pin(tokio::time::sleep(left.min(LOOK_EVERY))),
            cut: Box::pin(life.cut().clone().cancelled_owned()),
            life,
        }
    }

    /// Ready, with the reason, once the connection may not go on; wakes the task then.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.life.why_cut().unwrap_or(Cut::Revoked).words());
        }
        while self.next_look.as_mut().poll(cx).is_ready() {
            // It may have been extended since the last look.
            let left = UnixMillis::now().until(self.life.over_at());
            if left.is_zero() {
                return Poll::Ready("its certificate has expired");
            }
            self.next_look
                .as_mut()
                .reset(Instant::now() + left.min(LOOK_EVERY));
        }
        Poll::Pending
    }
}
