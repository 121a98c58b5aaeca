//! Looks at the host, again and again, and keeps the last report.
//!
//! One look at a time. Each has a number, so that who waits for a look that begins after some event can tell
//! which one that is. Every ten seconds and whenever somebody waits the look is a whole one; what libvirt tells
//! of in between brings quick ones, at least 200 ms apart. The invariant: each look ends in a report, whatever
//! hangs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_common::rpc::hostler::agent::v1::{HostReport, Observed};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blocking::Blocking;
use crate::hypervisor::Look;

/// How often the host is looked at when nothing is known to have changed.
const INTERVAL: Duration = Duration::from_secs(10);
/// libvirt tells of one start in several events.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Between the beginnings of two looks that events bring: a storm of them must not keep libvirt busy.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at the host. Blocks, and never fails: what cannot be told is in the report.
pub type Observe = Arc<dyn Fn(Look) -> HostReport + Send + Sync>;

/// The result of one look.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Which look, from 1. Zero before the first.
    pub number: u64,
    /// What was seen; none before the first look is over.
    pub report: Option<Arc<HostReport>>,
}

#[derive(Debug, Default)]
struct Shared {
    started: Mutex<u64>,
    wanted: Notify,
    changed: Notify,
}

/// Asks for looks and reads their results.
#[derive(Debug, Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
    latest: watch::Receiver<Observation>,
}

impl Reporter {
    /// Asks for a look that begins after this call, and answers its number.
    pub fn want(&self) -> u64 {
        let next = *self.shared.started.lock().unwrap_or_else(PoisonError::into_inner) + 1;
        self.shared.wanted.notify_one();
        next
    }

    /// Says that something on the host changed. May be called from any thread, as often as it likes.
    pub fn changed(&self) {
        self.shared.changed.notify_one();
    }

    /// The results, newest only.
    pub fn latest(&self) -> watch::Receiver<Observation> {
        self.latest.clone()
    }
}

/// Starts looking, at once and then on. A look that takes longer than `deadline` is reported as what it is, from
/// the last one or else from `unseen`, which was made without looking.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    observe: Observe,
    unseen: HostReport,
    deadline: Duration,
    stop: CancellationToken,
) -> Reporter {
    // One place: while a look hangs, another would hang beside it.
    spawn_in(tasks, Blocking::new(1), observe, unseen, deadline, stop)
}

/// The same, with a place of the caller's for the looks.
pub fn spawn_in(
    tasks: &mut JoinSet<()>,
    blocking: Blocking,
    observe: Observe,
    unseen: HostReport,
    deadline: Duration,
    stop: CancellationToken,
) -> Reporter {
    let shared = Arc::new(Shared::default());
    let (results, latest) = watch::channel(Observation::default());
    let task = ReporterTask {
        observe,
        unseen,
        deadline,
        blocking,
        shared: Arc::clone(&shared),
        results,
    };
    tasks.spawn(task.run(stop));
    Reporter { shared, latest }
}

struct ReporterTask {
    observe: Observe,
    unseen: HostReport,
    deadline: Duration,
    blocking: Blocking,
    shared: Arc<Shared>,
    results: watch::Sender<Observation>,
}

impl ReporterTask {
    async fn run(self, stop: CancellationToken) {
        let mut wish = Look::Whole;
        let mut whole_due = Instant::now();
        let mut failing = false;
        loop {
            let began = Instant::now();
            let look = match began >= whole_due {
                true => Look::Whole,
                false => wish,
            };
            // Cancel-safe: a look that is left goes on by itself on its thread. libvirt may hang for longer than
            // anyone waits for the end of this process.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.look(look, &mut failing) => {}
            }
            if look == Look::Whole {
                whole_due = Instant::now() + INTERVAL;
            }
            // Cancel-safe: a Notify keeps one permit for whoever waits next; the rest only waits.
            wish = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.shared.wanted.notified() => Look::Whole,
                () = self.shared.changed.notified() => Look::Quick,
                () = tokio::time::sleep_until(whole_due) => Look::Whole,
            };
            if wish == Look::Quick {
                let settled = (Instant::now() + DEBOUNCE).max(began + PAUSE);
                // Cancel-safe: as above.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.shared.wanted.notified() => wish = Look::Whole,
                    () = tokio::time::sleep_until(settled) => {}
                }
            }
        }
    }

    /// `failing` tells whether the look before was one, of which the log was told.
    async fn look(&self, look: Look, failing: &mut bool) {
        let number = {
            let mut started = self.shared.started.lock().unwrap_or_else(PoisonError::into_inner);
            *started += 1;
            *started
        };
        let observe = Arc::clone(&self.observe);
        let seen = self
            .blocking
            .run("looking at the host", self.deadline, move || observe(look))
            .await;
        let report = match seen {
            Ok(report) => {
                *failing = false;
                report
            }
            Err(fault) => {
                match std::mem::replace(failing, true) {
                    false => tracing::warn!(%fault, "the host cannot be looked at"),
                    true => tracing::debug!(%fault, "the host cannot be looked at"),
                }
                let last = self.results.borrow().report.clone();
                untold(last.as_deref().unwrap_or(&self.unseen), &fault.to_string())
            }
        };
        let report = Some(Arc::new(report));
        self.results.send_replace(Observation { number, report });
    }
}

/// The last report, with everything that may have changed since marked as unknown.
fn untold(last: &HostReport, problem: &str) -> HostReport {
    let mut report = last.clone();
    if let Some(libvirt) = report.inventory.as_mut().and_then(|all| all.libvirt.as_mut()) {
        libvirt.problem = problem.to_owned();
    }
    for hypervisor in &mut report.hypervisors {
        hypervisor.observed = Observed::Unknown.into();
        hypervisor.detail = problem.to_owned();
    }
    for pool in &mut report.pools {
        pool.problem = problem.to_owned();
    }
    report
}
