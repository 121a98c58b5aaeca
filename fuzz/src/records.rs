//! What the coordinator stores, read back from JSON that may be damaged or of another version.

use std::fmt::Debug;

use hostler_common::error::Chain;
use hostler_common::id::Fence;
use hostler_common::operation::Request;
use hostler_common::units::UnixMillis;
use hostler_coordinator::operation::locks::Lock;
use hostler_coordinator::operation::record::{Include, OperationRecord};
use hostler_coordinator::operation::sentences;
use hostler_coordinator::operation::state::{End, Event, Limits, Proposal, next};
use hostler_coordinator::registry::{HypervisorRecord, PoolRecord};
use hostler_coordinator::store::{Write, json};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::said;

/// # Panics
/// When a record that was read is not the same after it is stored again.
pub fn run(data: &[u8]) {
    if let Some(record) = same_again::<OperationRecord>(data) {
        operation(record);
    }
    if let Some(lock) = same_again::<Lock>(data) {
        lock.turn();
        assert!(lock.fence.next() >= lock.fence);
    }
    same_again::<HypervisorRecord>(data);
    same_again::<PoolRecord>(data);
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let record: T = match json::read_value("/a/key", data) {
        Ok(record) => record,
        Err(error) => {
            said::bounded(&Chain(&error).to_string());
            return None;
        }
    };
    let Write::Put { value, .. } = json::put("/a/key".to_owned(), &record) else {
        panic!("a record is not put");
    };
    let again: T = json::read_value("/a/key", &value).expect("what was written reads");
    assert_eq!(again, record);
    Some(record)
}

fn operation(mut record: OperationRecord) {
    live_on(&record);
    for include in [Include::Logs, Include::Summary] {
        let told = record.to_rpc(include);
        if let Some(request) = told.lease.and_then(|lease| lease.operation_request)
            && let Err(error) = Request::of(&request)
        {
            said::bounded(&Chain(&error).to_string());
        }
    }
    for seen in [0, 1, record.logs.count(), u64::MAX] {
        record.logs.after(seen);
    }
    if let Some(lease) = record.lease().cloned() {
        sentences::expired(&record, &lease);
    }
    sentences::busy(&record);
    sentences::locked(&record);
    sentences::ending(&record, "it ended");
    record.logs.push(UnixMillis(0), "one more line");
    assert_eq!(record.logs.last(), "one more line");
}

/// What may happen next to it, by the pure transitions.
fn live_on(record: &OperationRecord) {
    let Some(token) = record
        .lease()
        .map_or_else(|| "token".parse().ok(), |lease| Some(lease.token.clone()))
    else {
        return;
    };
    let proposal = |fence| Proposal {
        token: token.clone(),
        fence,
        newest_fence: record.fence,
        lock_for_seconds: u32::MAX,
        is_disabled_cancel: true,
        now: UnixMillis(i64::MAX),
    };
    let mut events = vec![
        Event::Proposed(proposal(record.fence)),
        Event::Proposed(proposal(Fence(0))),
        Event::Finished {
            token: token.clone(),
            fence: record.fence,
            end: End::NeedsAttention,
        },
        Event::HostAbsent,
        Event::Barred,
        Event::Resolved,
        Event::CancelRequested { by: "ada".to_owned() },
    ];
    events.extend(record.lease().cloned().map(Event::LeaseExpired));
    for event in events {
        let limits = Limits { max_attempts: 3 };
        if let Err(refusal) = next(limits, record.operator(), record.fence, &record.life, event) {
            said::bounded(&refusal.to_string());
        }
    }
}
