//! One slot for each operation that somebody follows, holding it as the mirror last took it. A follower that is
//! slow sees the newest state when it looks; nothing is queued, and a change wakes only those that follow it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_common::id::OperationId;
use tokio::sync::watch;

use crate::operation::record::OperationRecord;

type Slot = watch::Sender<Latest>;

/// What a slot holds.
#[derive(Debug, Clone, Default)]
pub enum Latest {
    /// Nothing that is known to be current: read the store.
    #[default]
    Unknown,
    /// The operation as the mirror took it.
    Is(Arc<OperationRecord>),
}

/// Every slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<Mutex<HashMap<OperationId, Slot>>>);

impl Slots {
    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn follow(&self, id: OperationId) -> Followed {
        let latest = Some(self.lock().entry(id).or_default().subscribe());
        Followed {
            slots: self.clone(),
            id,
            latest,
        }
    }

    pub(super) fn tell(&self, record: &Arc<OperationRecord>) {
        if let Some(slot) = self.lock().get(&record.id) {
            slot.send_replace(Latest::Is(record.clone()));
        }
    }

    /// The mirror may have missed changes.
    pub(super) fn tell_all_unknown(&self) {
        for slot in self.lock().values() {
            slot.send_replace(Latest::Unknown);
        }
    }
}

/// One follower's view of an operation.
#[derive(Debug)]
pub struct Followed {
    slots: Slots,
    id: OperationId,
    /// None only while it is dropped.
    latest: Option<watch::Receiver<Latest>>,
}

impl Followed {
    /// The operation after the next change. Cancel-safe.
    pub async fn changed(&mut self) -> Latest {
        let Some(latest) = &mut self.latest else {
            return Latest::Unknown;
        };
        // The slot lives as long as this follower.
        let _ = latest.changed().await;
        latest.borrow_and_update().clone()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut slots = self.slots.lock();
        // Under the lock, so that of two that go at once one sees that it is the last.
        self.latest = None;
        if slots.get(&self.id).is_some_and(|slot| slot.receiver_count() == 0) {
            slots.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
