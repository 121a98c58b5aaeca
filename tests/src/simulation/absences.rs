//! Which hosts cannot be heard of, and since when: what a list has to show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_common::id::HostName;
use tokio::time::Instant;

use super::scenario::{LATE_TIMES, Scenario};
use super::witness::Witness;

/// Clones share it.
#[derive(Clone)]
pub(super) struct Absences {
    silence: Duration,
    /// A host may be away for more than one reason.
    gone: Arc<Mutex<BTreeMap<HostName, (u32, Instant)>>>,
}

impl Absences {
    /// A host is to be missed after three heartbeats, and when its last messages cannot be under way any more.
    pub(super) fn new(scenario: &Scenario) -> Self {
        let late = Duration::from_millis(scenario.latency_ms.1) * LATE_TIMES;
        Self {
            silence: scenario.config.sessions.heartbeat * 3 + late + Duration::from_secs(2),
            gone: Arc::default(),
        }
    }

    fn gone(&self) -> MutexGuard<'_, BTreeMap<HostName, (u32, Instant)>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `host` goes away, for one more reason.
    pub(super) fn begin(&self, host: &HostName) {
        self.gone().entry(host.clone()).or_insert((0, Instant::now())).0 += 1;
    }

    /// One of the reasons is over.
    pub(super) fn end(&self, host: &HostName) {
        let mut gone = self.gone();
        if let Some((reasons, _)) = gone.get_mut(host) {
            *reasons -= 1;
            if *reasons == 0 {
                gone.remove(host);
            }
        }
    }

    /// Hosts that have been away for so long that everybody should know.
    pub(super) fn long_gone(&self) -> BTreeSet<HostName> {
        let gone = self.gone();
        let long = gone
            .iter()
            .filter(|(_, (_, since))| since.elapsed() > self.silence);
        long.map(|(host, _)| host.clone()).collect()
    }

    /// Whether the host of hypervisor `id` is away now.
    pub(super) fn still(&self, id: &str, witness: &Witness) -> bool {
        witness
            .host_of(id)
            .is_some_and(|host| self.gone().contains_key(&host.name))
    }
}
