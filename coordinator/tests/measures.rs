//! How far an operation is: told to who follows it, when its holder says so, and never kept.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::id::Fence;
use hostler_common::rpc::hostler::agent::v1::Measure;
use hostler_coordinator::operation::locks::Lock;
use hostler_coordinator::operation::record::OperationRecord;
use hostler_coordinator::operation::state::{End, Phase};
use hostler_coordinator::registry::{self, Latest};
use hostler_coordinator::store::{Committed, Store, Transaction, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

fn measure(done_bytes: u64) -> Measure {
    Measure {
        done_bytes,
        ..Measure::default()
    }
}

#[tokio::test]
async fn a_measure_counts_only_from_the_host_and_fence_that_hold_the_operation() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut record: OperationRecord =
        serde_json::from_str(include_str!("frozen/operation-active-1.json")).unwrap();
    let lock = Lock {
        fence: record.fence,
        queue: vec![record.id],
        attention: None,
    };
    let key = OperationRecord::key(record.id);
    let transaction = Transaction {
        compares: Vec::new(),
        writes: vec![
            json::put(Lock::key(&record.resource), &lock),
            json::put(key.clone(), &record),
        ],
    };
    store.commit(transaction).await.unwrap();
    let mut tasks = JoinSet::new();
    let registry = registry::spawn(store.clone(), None, &mut tasks).await.unwrap();
    let (host, fence) = (record.host.clone(), record.fence);
    let mut followed = registry.follow(record.id);
    registry.measured(&"other".parse().unwrap(), record.id, fence, measure(1));
    registry.measured(&host, record.id, Fence(fence.0 - 1), measure(2));
    registry.measured(&host, record.id, fence.next(), measure(3));
    registry.measured(&host, record.id, fence, measure(4));
    let Latest::Measure(told) = followed.changed().await else {
        panic!("a measure was expected")
    };
    assert_eq!(told, measure(4));

    record.life.phase = Phase::Ended(End::Completed);
    let ended = Transaction {
        compares: Vec::new(),
        writes: vec![json::put(key, &record)],
    };
    let Committed::At(revision) = store.commit(ended).await.unwrap() else {
        panic!("nothing was compared")
    };
    registry.taken(revision).await;
    let mut late = registry.follow(record.id);
    registry.measured(&host, record.id, fence, measure(5));
    assert!(matches!(followed.changed().await, Latest::Is(record) if record.end().is_some()));
    // A first measure of this follower would be there at once.
    tokio::select! {
        biased;
        latest = late.changed() => assert!(matches!(latest, Latest::Is(_)), "after the end: {latest:?}"),
        () = tokio::task::yield_now() => {}
    }
}
