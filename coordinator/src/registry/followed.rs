//! One slot for each operation that somebody follows, holding it as the mirror last took it, and how far it last said
//! to be. A follower that is slow sees the newest when it looks; nothing is queued, and a change wakes only those that
//! follow it.
//!
//! Invariant: a follower that has seen an operation's end is told nothing of it again, and a record is never hidden by
//! a measure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_common::id::OperationId;
use hostler_common::rpc::hostler::agent::v1::Measure;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::operation::record::OperationRecord;

/// Measures of one operation are told no closer than this: two in a second.
const BETWEEN_MEASURES: Duration = Duration::from_millis(400);

/// What a follower is told.
#[derive(Debug, Clone)]
pub enum Latest {
    /// Nothing that is known to be current: read the store.
    Unknown,
    /// The operation as the mirror took it.
    Is(Arc<OperationRecord>),
    /// How far it is. Some are never told.
    Measure(Measure),
}

/// What is known of one operation.
#[derive(Debug, Default)]
struct Slot {
    /// None when what is current must be read from the store.
    record: Option<Arc<OperationRecord>>,
    /// Since `record` was told; one before it would be told too late.
    measure: Option<Measure>,
    measured_at: Option<Instant>,
    told: Told,
}

/// Counts what has been told.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    records: u64,
    measures: u64,
}

impl Slot {
    fn tell(&mut self, record: Option<Arc<OperationRecord>>) {
        self.record = record;
        self.measure = None;
        self.told.records += 1;
    }

    /// True when it was taken.
    fn measure(&mut self, measure: Measure) -> bool {
        let now = Instant::now();
        let too_early = |at: Instant| now.duration_since(at) < BETWEEN_MEASURES;
        if self.measured_at.is_some_and(too_early) {
            return false;
        }
        self.measured_at = Some(now);
        self.measure = Some(measure);
        self.told.measures += 1;
        true
    }

    /// What a follower that has seen so much is told next.
    fn next(&self, seen: &mut Told) -> Option<Latest> {
        if seen.records != self.told.records {
            seen.records = self.told.records;
            return Some(self.record.clone().map_or(Latest::Unknown, Latest::Is));
        }
        if seen.measures != self.told.measures {
            seen.measures = self.told.measures;
            return self.measure.clone().map(Latest::Measure);
        }
        None
    }
}

/// Every slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<Mutex<BTreeMap<OperationId, watch::Sender<Slot>>>>);

impl Slots {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<OperationId, watch::Sender<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn follow(&self, id: OperationId) -> Followed {
        let slot = self.lock().entry(id).or_default().subscribe();
        let seen = slot.borrow().told;
        Followed {
            slots: self.clone(),
            id,
            slot: Some(slot),
            seen,
        }
    }

    pub(super) fn tell(&self, record: &Arc<OperationRecord>) {
        if let Some(slot) = self.lock().get(&record.id) {
            slot.send_modify(|slot| slot.tell(Some(record.clone())));
        }
    }

    pub(super) fn tell_measure(&self, id: OperationId, measure: Measure) {
        if let Some(slot) = self.lock().get(&id) {
            slot.send_if_modified(|slot| slot.measure(measure));
        }
    }

    /// The mirror may have missed changes.
    pub(super) fn tell_all_unknown(&self) {
        for slot in self.lock().values() {
            slot.send_modify(|slot| slot.tell(None));
        }
    }
}

/// One follower's view of an operation.
#[derive(Debug)]
pub struct Followed {
    slots: Slots,
    id: OperationId,
    /// None only while it is dropped.
    slot: Option<watch::Receiver<Slot>>,
    seen: Told,
}

impl Followed {
    /// What is new of the operation: how it stands, before how far it is. Cancel-safe.
    pub async fn changed(&mut self) -> Latest {
        let Some(slot) = &mut self.slot else {
            return Latest::Unknown;
        };
        loop {
            if let Some(latest) = slot.borrow_and_update().next(&mut self.seen) {
                return latest;
            }
            if slot.changed().await.is_err() {
                // The slot lives as long as this follower.
                return Latest::Unknown;
            }
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut slots = self.slots.lock();
        // Under the lock, so that of two that go at once one sees that it is the last.
        self.slot = None;
        if slots.get(&self.id).is_some_and(|slot| slot.receiver_count() == 0) {
            slots.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(done_bytes: u64) -> Measure {
        Measure {
            done_bytes,
            ..Measure::default()
        }
    }

    fn done(latest: &Latest) -> Option<u64> {
        match latest {
            Latest::Measure(measure) => Some(measure.done_bytes),
            Latest::Unknown | Latest::Is(_) => None,
        }
    }

    #[test]
    fn a_slot_goes_with_its_last_follower() {
        let slots = Slots::default();
        let id = OperationId::generate();
        let (first, second) = (slots.follow(id), slots.follow(id));
        drop(first);
        assert_eq!(slots.lock().len(), 1);
        drop(second);
        assert!(slots.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn measures_come_twice_a_second_and_each_follower_sees_the_newest() {
        let slots = Slots::default();
        let id = OperationId::generate();
        let mut followed = slots.follow(id);
        slots.tell_measure(id, measure(1));
        slots.tell_measure(id, measure(2));
        assert_eq!(
            done(&followed.changed().await),
            Some(1),
            "the second came too early"
        );
        tokio::time::advance(BETWEEN_MEASURES).await;
        slots.tell_measure(id, measure(3));
        tokio::time::advance(BETWEEN_MEASURES).await;
        slots.tell_measure(id, measure(4));
        assert_eq!(done(&followed.changed().await), Some(4));
        let mut late = slots.follow(id);
        let nothing = tokio::time::timeout(BETWEEN_MEASURES, late.changed()).await;
        assert!(
            nothing.is_err(),
            "what was told before it followed is not told again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_told_before_a_measure_and_makes_older_measures_void() {
        let slots = Slots::default();
        let id = OperationId::generate();
        let mut followed = slots.follow(id);
        slots.tell_measure(id, measure(1));
        slots.tell_all_unknown();
        assert!(matches!(followed.changed().await, Latest::Unknown));
        let nothing = tokio::time::timeout(BETWEEN_MEASURES, followed.changed()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        slots.tell_all_unknown();
        slots.tell_measure(id, measure(2));
        assert!(matches!(followed.changed().await, Latest::Unknown));
        assert_eq!(done(&followed.changed().await), Some(2));
    }
}
