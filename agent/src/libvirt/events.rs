//! Domain events: tells at once that a domain started or ended, and that the connection was lost.
//!
//! It says that something changed and never what: the receiver looks for itself. So events that arrive together
//! may become one, and after a lost connection there is always one, since events may have been missed.

mod raw;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hostler_common::error::Chain;
use hostler_common::retry::Waits;
use virt::connect::Connect;

use super::LibvirtFault;
use raw::Subscription;

/// A connection that lasted this long was a good one: the next wait is the first again.
const LASTED: Duration = Duration::from_secs(5);

/// Opens a connection. The process's event loop runs before the first one opens, because libvirt attaches a
/// connection to the loop that exists at its opening.
pub(super) fn open(uri: &str) -> Result<Connect, LibvirtFault> {
    raw::ensure_event_loop()?;
    let connection = Connect::open(Some(uri))?;
    // A daemon that stopped answering is taken for gone after 30 s, so that a call on it fails rather than
    // hangs. Local drivers have no connection to keep alive and refuse.
    let _ = connection.set_keep_alive(5, 5);
    Ok(connection)
}

/// What happened since the watcher last looked.
#[derive(Debug, Default)]
struct Pending {
    changed: bool,
    closed: bool,
    stopped: bool,
}

/// Where libvirt's callbacks leave what happened. They only set flags: a callback runs on the event loop's
/// thread inside libvirt, where nothing may block or panic.
#[derive(Debug, Default)]
struct Signals {
    pending: Mutex<Pending>,
    woken: Condvar,
}

impl Signals {
    fn set(&self, set: impl FnOnce(&mut Pending)) {
        set(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.notify_all();
    }

    /// Waits until something is pending, at most for `at_most`, and takes it. `stopped` stays.
    fn take(&self, at_most: Option<Duration>) -> Pending {
        let idle = |pending: &mut Pending| !(pending.changed || pending.closed || pending.stopped);
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pending = match at_most {
            Some(at_most) => {
                self.woken
                    .wait_timeout_while(pending, at_most, idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self
                .woken
                .wait_while(pending, idle)
                .unwrap_or_else(PoisonError::into_inner),
        };
        let stopped = pending.stopped;
        std::mem::replace(
            &mut pending,
            Pending {
                stopped,
                ..Pending::default()
            },
        )
    }
}

/// Watches domains until it is dropped.
#[derive(Debug)]
pub struct DomainWatch {
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

impl DomainWatch {
    /// Stops it and waits until it has. Dropping it stops it without waiting.
    pub fn stop(mut self) {
        self.signals.set(|pending| pending.stopped = true);
        if let Some(thread) = self.thread.take() {
            // An error means that `on_change` panicked, which was reported then.
            let _ = thread.join();
        }
    }
}

impl Drop for DomainWatch {
    fn drop(&mut self) {
        self.signals.set(|pending| pending.stopped = true);
    }
}

/// Calls `on_change` whenever a domain at `uri` starts, stops or is defined or undefined, when the connection
/// breaks, and when it is there again. It runs on the watcher's own thread and may block.
///
/// # Errors
/// When the kernel gives no thread.
pub fn watch_domains(
    uri: &str,
    on_change: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<DomainWatch> {
    let signals = Arc::new(Signals::default());
    let uri = uri.to_owned();
    let seen = signals.clone();
    let thread = std::thread::Builder::new()
        .name("domain-watch".into())
        .spawn(move || watch(&uri, &seen, &on_change))?;
    Ok(DomainWatch {
        signals,
        thread: Some(thread),
    })
}

fn watch(uri: &str, signals: &Arc<Signals>, on_change: &impl Fn()) {
    let mut waits = Waits::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut reported = None;
    loop {
        match Subscription::open(uri, signals) {
            Ok(subscription) => {
                let opened = Instant::now();
                reported = None;
                tracing::debug!(uri, "watching domains");
                on_change();
                loop {
                    let pending = signals.take(None);
                    if pending.stopped {
                        return;
                    }
                    on_change();
                    if pending.closed {
                        break;
                    }
                }
                tracing::warn!(uri, "the connection to libvirt broke");
                drop(subscription);
                // A daemon that takes connections and drops them at once is not asked twice a second for ever.
                if opened.elapsed() >= LASTED {
                    waits.reset();
                }
            }
            Err(fault) => {
                // The same reason again is not news.
                if reported.as_ref() != Some(&fault) {
                    tracing::warn!(uri, error = %Chain(&fault), "cannot watch domains; trying again");
                    reported = Some(fault);
                }
            }
        }
        if signals.take(Some(waits.next_wait())).stopped {
            return;
        }
    }
}
