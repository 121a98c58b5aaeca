//! What the coordinator tells systemd: that it is ready, that it serves, that it ends. Without systemd all is silent.
//!
//! Invariant: a sign of life is sent only after [`Vital::signs`] found that the coordinator serves.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::vital::Vital;

/// How often to look when nobody listens.
const UNWATCHED: Duration = Duration::from_secs(3600);

/// Beyond the drain time: the store closes and the runtime ends.
const AFTER_DRAIN: Duration = Duration::from_secs(30);

/// Says that the coordinator is ready, and then that it lives, until `stop`; then that it ends, within `drain`.
/// It goes on until it is dropped.
pub async fn tell(vital: Vital, stop: CancellationToken, drain: Duration) -> Infallible {
    send(NotifyState::Ready);
    // A third of `WatchdogSec=`, so that one that is late does no harm.
    let every = sd_notify::watchdog_enabled().map_or(UNWATCHED, |limit| limit / 3);
    let mut watchdog = tokio::time::interval(every);
    loop {
        // Cancel-safe: a token and a clock lose nothing when they are not the first.
        tokio::select! {
            () = stop.cancelled() => break,
            _ = watchdog.tick() => {}
        }
        // Cancel-safe: a question that is given up is asked again.
        tokio::select! {
            () = stop.cancelled() => break,
            signs = vital.signs() => match signs {
                Ok(()) => send(NotifyState::Watchdog),
                Err(silent) => tracing::error!("{silent}; systemd will restart the coordinator"),
            }
        }
    }
    send(NotifyState::Stopping);
    // The unit's own bound is short; the configuration may allow connections more.
    let end = u32::try_from((drain + AFTER_DRAIN).as_micros()).unwrap_or(u32::MAX);
    send(NotifyState::ExtendTimeoutUsec(end));
    std::future::pending().await
}

fn send(state: NotifyState<'_>) {
    // Ok also where no service manager listens.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
