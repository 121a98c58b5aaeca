//! What the agent tells systemd: that it is ready, that it lives, that it ends. Without systemd all is silent.

use std::time::Duration;

use sd_notify::NotifyState;

/// A session task that has not turned for this long is stuck: it turns every second.
const STUCK: Duration = Duration::from_secs(10);

/// How often to say that the process lives, when systemd wants to hear it (`WatchdogSec=`).
pub fn watchdog_interval() -> Option<Duration> {
    // A third, so that one that is late does no harm.
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
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
