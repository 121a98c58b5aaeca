//! What the agent tells systemd: that it is ready, that it lives, that it ends. Without systemd all is silent.

use std::time::Duration;

use sd_notify::NotifyState;

/// A session task that has not turned for this long is stuck: it turns every second.
const STUCK: Duration = Duration::from_secs(10);

/// How often to say that the process lives when nobody listens.
const UNWATCHED: Duration = Duration::from_secs(3600);

/// How often to say that the process lives: a third of `WatchdogSec=`, so that one that is late does no harm.
pub fn watchdog_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(UNWATCHED, |limit| limit / 3)
}

/// The configuration is loaded and the host has been looked at.
pub fn ready() {
    tracing::info!("ready");
    tell(NotifyState::Ready);
}

/// The end was asked for.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// The process lives, unless its session task last turned too long ago.
pub fn alive(since_last_turn: Duration) {
    match since_last_turn < STUCK {
        true => tell(NotifyState::Watchdog),
        false => tracing::error!(
            ?since_last_turn,
            "the session task is stuck; systemd will restart the agent"
        ),
    }
}

fn tell(state: NotifyState<'_>) {
    // Ok also where no service manager listens.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
