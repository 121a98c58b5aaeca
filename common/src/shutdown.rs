//! From a signal to the end of a process: one token that everything listens to.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at the first SIGTERM or SIGINT. A second SIGINT ends the process at once: somebody sits at a
/// terminal and waits. A second SIGTERM changes nothing, since service managers and scripts repeat it.
///
/// # Errors
/// When the kernel refuses the signal handlers.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            // Cancel-safe: a signal stream keeps what arrives until it is received.
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if cancelled.is_cancelled() {
                if name == "SIGINT" {
                    tracing::warn!("second SIGINT: ending at once");
                    std::process::exit(130);
                }
                continue;
            }
            tracing::info!(signal = name, "ending");
            cancelled.cancel();
        }
    });
    Ok(token)
}
