//! The store's promises: compares hold, order is kept, what it answered survives, what it cannot read it refuses.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::operation::{Hold, Purpose, Request};
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use hostler_coordinator::operation::record::OperationRecord;
use hostler_coordinator::operation::state::Operator;
use hostler_coordinator::registry::HypervisorRecord;
use hostler_coordinator::store::memory::{self, Act, Conductor, Keys};
use hostler_coordinator::store::{
    Committed, Compare, Order, Range, Revision, Store, StoreError, Transaction, Write,
};
use prost::Message as _;
use prost_types::Any;
use tempfile::TempDir;

fn put(key: &str, value: &str, modified: u64) -> Transaction {
    let (key, value) = (key.to_owned(), value.as_bytes().to_vec());
    Transaction {
        compares: vec![Compare {
            key: key.clone(),
            modified: Revision(modified),
        }],
        writes: vec![Write::Put { key, value }],
    }
}

fn range(order: Order, beyond: Option<&str>, at_most: usize) -> Range {
    Range {
        prefix: "/a/".into(),
        beyond: beyond.map(str::to_owned),
        at_most,
        order,
    }
}

async fn keys(store: &Store, range: Range) -> Vec<String> {
    store
        .list(range)
        .await
        .unwrap()
        .0
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

/// The store in `directory`, which was just closed.
async fn reopened(directory: &Path) -> Store {
    loop {
        // The writer's thread lets the lock go when it has ended.
        match Store::open(directory) {
            Ok(store) => return store,
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Each law on each engine.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $law() {
                let dir = tempfile::TempDir::new().unwrap();
                super::$law(super::Store::open(dir.path()).unwrap()).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $law() {
                let (store, serving) = super::memory::open(&Default::default(), super::at_once());
                let serving = tokio::spawn(serving);
                super::$law(store).await;
                serving.await.unwrap();
            })*
        }
    };
}

laws!(
    a_compare_that_does_not_hold_changes_nothing,
    of_many_that_want_one_key_exactly_one_gets_it,
    listings_keep_their_prefix_order_and_bounds,
    a_watch_tells_each_transaction_whole_and_in_order_after_it_is_durable,
    who_watches_too_slowly_is_told_so,
);

fn at_once() -> Conductor {
    Arc::new(|_| Ok(Duration::ZERO))
}

async fn a_compare_that_does_not_hold_changes_nothing(store: Store) {
    let Committed::At(first) = store.commit(put("/a/1", "x", 0)).await.unwrap() else {
        panic!()
    };
    assert_eq!(
        store.commit(put("/a/1", "y", 0)).await.unwrap(),
        Committed::Conflict
    );
    let mut both = put("/a/2", "z", 0);
    both.compares.push(Compare {
        key: "/a/1".into(),
        modified: Revision(first.0 + 7),
    });
    assert_eq!(store.commit(both).await.unwrap(), Committed::Conflict);
    assert_eq!(store.get("/a/2").await.unwrap(), None);
    let entry = store.get("/a/1").await.unwrap().unwrap();
    assert_eq!((entry.value.as_slice(), entry.modified), (b"x".as_slice(), first));
}

async fn of_many_that_want_one_key_exactly_one_gets_it(store: Store) {
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(put("/a/1", &n.to_string(), 0)).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap() != Committed::Conflict);
    }
    assert_eq!(won, 1);
}

async fn listings_keep_their_prefix_order_and_bounds(store: Store) {
    for key in ["/a/1", "/a/2", "/a/3", "/aa/1", "/b/1", "/a"] {
        store.commit(put(key, "x", 0)).await.unwrap();
    }
    assert_eq!(
        keys(&store, range(Order::Ascending, None, 10)).await,
        ["/a/1", "/a/2", "/a/3"]
    );
    assert_eq!(
        keys(&store, range(Order::Descending, None, 2)).await,
        ["/a/3", "/a/2"]
    );
    assert_eq!(
        keys(&store, range(Order::Descending, Some("/a/2"), 2)).await,
        ["/a/1"]
    );
    assert_eq!(
        keys(&store, range(Order::Ascending, Some("/a/2"), 2)).await,
        ["/a/3"]
    );
}

async fn a_watch_tells_each_transaction_whole_and_in_order_after_it_is_durable(store: Store) {
    let mut watch = store.watch();
    let mut expected = Vec::new();
    for n in 0..10 {
        let mut transaction = put(&format!("/a/{n}"), "x", 0);
        transaction.writes.push(Write::Delete { key: "/b/1".into() });
        expected.push(transaction.writes.clone());
        store.commit(transaction).await.unwrap();
    }
    let mut last = Revision(0);
    for writes in expected {
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.writes, writes);
        assert!(event.revision > last);
        last = event.revision;
    }
}

async fn who_watches_too_slowly_is_told_so(store: Store) {
    let mut watch = store.watch();
    let commits: Vec<_> = (0..3000)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(put(&format!("/a/{n}"), "x", 0)).await.unwrap() })
        })
        .collect();
    for commit in commits {
        commit.await.unwrap();
    }
    assert!(watch.next().await.is_err());
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_reopen_and_revisions_go_on() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let Committed::At(before) = store.commit(put("/a/1", "x", 0)).await.unwrap() else {
        panic!()
    };
    let busy = Store::open(dir.path()).unwrap_err();
    assert!(matches!(busy, StoreError::InUse { .. }), "{busy}");
    drop(store);
    let store = reopened(dir.path()).await;
    assert_eq!(store.get("/a/1").await.unwrap().unwrap().value, b"x");
    let Committed::At(after) = store.commit(put("/a/2", "y", 0)).await.unwrap() else {
        panic!()
    };
    assert!(after > before);
}

#[tokio::test]
async fn a_store_whose_file_is_taken_away_says_so_and_goes_on_when_it_is_back() {
    for name in ["hostler.db", "hostler.db-wal"] {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let before = store.commit(put("/a/1", "kept", 0)).await.unwrap();
        assert_eq!(store.trouble().await, None);
        let (here, away) = (dir.path().join(name), dir.path().join("away"));
        std::fs::rename(&here, &away).unwrap();
        for replaced in [false, true] {
            if replaced {
                std::fs::copy(&away, &here).unwrap();
            }
            let told = store.trouble().await.unwrap();
            assert!(told.contains(name), "before anybody has lost anything: {told}");
            let refused = store.commit(put("/a/2", "lost with the process", 0)).await;
            let said = Chain(&refused.unwrap_err()).to_string();
            assert!(
                said.contains(name) && said.contains("move the file back"),
                "{said}"
            );
        }
        std::fs::rename(&away, &here).unwrap();
        assert_eq!(store.trouble().await, None);
        let (found, now) = store.list(range(Order::Ascending, None, 9)).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(before, Committed::At(now), "who asks writes nothing");
        store.commit(put("/a/2", "kept", 0)).await.unwrap();
        drop(store);
        let store = reopened(dir.path()).await;
        assert_eq!(
            keys(&store, range(Order::Ascending, None, 9)).await,
            ["/a/1", "/a/2"]
        );
    }
}

#[test]
fn a_later_format_and_a_damaged_file_are_refused_in_one_sentence() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("hostler.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let refused = Chain(&Store::open(dir.path()).unwrap_err()).to_string();
    assert!(
        refused.contains("format 99") && refused.contains("newer version"),
        "{refused}"
    );
    std::fs::write(&path, [0x5a; 8192]).unwrap();
    let refused = Chain(&Store::open(dir.path()).unwrap_err()).to_string();
    assert!(
        refused.contains("is damaged") && refused.contains("backup"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), [0x5a; 8192], "it was not touched");
}

#[tokio::test]
async fn a_store_of_the_first_format_is_taken_over() {
    let dir = TempDir::new().unwrap();
    let connection = rusqlite::Connection::open(dir.path().join("hostler.db")).unwrap();
    let first = include_str!("frozen/store-1.sql");
    connection.execute_batch(first).unwrap();
    drop(connection);
    let store = Store::open(dir.path()).unwrap();
    let entry = store.get("/a/1").await.unwrap().unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.modified),
        (b"x".as_slice(), Revision(7))
    );
    let Committed::At(next) = store.commit(put("/a/1", "y", 7)).await.unwrap() else {
        panic!()
    };
    assert_eq!(next, Revision(10));
}

#[tokio::test]
async fn a_takeover_that_is_interrupted_is_not_mistaken_for_a_copy() {
    let dir = TempDir::new().unwrap();
    let connection = rusqlite::Connection::open(dir.path().join("hostler.db")).unwrap();
    let first = include_str!("frozen/store-1.sql");
    connection.execute_batch(first).unwrap();
    drop(connection);
    // The witness cannot be written, as when its disk is full.
    let in_the_way = dir.path().join("hostler.newest.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let refused = Store::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Witness { .. }), "{refused}");
    std::fs::remove_dir(&in_the_way).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.get("/a/1").await.unwrap().is_some());
}

#[test]
fn root_leaves_nothing_in_a_directory_of_another_user() {
    let dir = TempDir::new().unwrap();
    // Only root can give it away, and only root is refused.
    if std::os::unix::fs::chown(dir.path(), Some(65_534), None).is_err() {
        return;
    }
    for refused in [
        Store::open(dir.path()).unwrap_err(),
        Store::accept_loss(dir.path()).unwrap_err(),
    ] {
        let said = Chain(&refused).to_string();
        assert!(said.contains("user 65534") && said.contains("runuser"), "{said}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_loss_that_was_not_accepted_to_its_end_is_accepted_again() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(put("/a/1", "x", 0)).await.unwrap();
    drop(store);
    for finished in [false, true] {
        let (store, accepting) = loop {
            match Store::accept_loss(dir.path()) {
                Ok(accepted) => break accepted,
                Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        // What is written meanwhile does not make it whole.
        let key = format!("/b/{finished}");
        store.commit(put(&key, "ended", 0)).await.unwrap();
        if finished {
            accepting.finish().unwrap();
        }
        drop(store);
        let opened = loop {
            match Store::open(dir.path()) {
                Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                opened => break opened,
            }
        };
        match opened {
            Ok(_) => assert!(finished, "half of it was taken for the whole"),
            Err(StoreError::Unwitnessed { .. }) => assert!(!finished),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn records_of_the_first_format_are_still_read() {
    let hypervisor = include_str!("frozen/hypervisor-1.json");
    let read: HypervisorRecord = serde_json::from_str(hypervisor).unwrap();
    assert_eq!(read.host.as_str(), "rack1-07");
    assert_eq!(read.inventory.gpus[0].model, "A40");
    for (text, state) in [
        (include_str!("frozen/operation-active-1.json"), "Active"),
        (include_str!("frozen/operation-ended-1.json"), "Failed"),
        (include_str!("frozen/operation-storage-1.json"), "Active"),
    ] {
        let read: OperationRecord = serde_json::from_str(text).unwrap();
        assert_eq!(format!("{:?}", read.state()), state);
        assert!(!read.logs.last().is_empty());
        let request = Request::of(&Any::from(&read.request)).unwrap();
        assert_eq!(
            Purpose::Work(request.kind()),
            read.kind,
            "what was asked for is still understood"
        );
        assert_eq!(read.cancel.is_some(), read.resource.as_str() == "tank");
    }
    let hold: OperationRecord = serde_json::from_str(include_str!("frozen/operation-hold-1.json")).unwrap();
    let proposal = ProposeOperationRequest::decode(&*Any::from(&hold.request).value).unwrap();
    assert_eq!(Hold::of(&proposal).unwrap().resource, hold.resource);
    assert_eq!((hold.kind, hold.operator()), (Purpose::HOLD, Operator::Client));
    assert_eq!(hold.lease().unwrap().ran_ms, 600_000);
    let lock: hostler_coordinator::operation::locks::Lock =
        serde_json::from_str(include_str!("frozen/lock-1.json")).unwrap();
    assert_eq!((lock.fence.0, lock.queue.len()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_memory_leaves_a_commit_done_or_not_done_and_the_keys_stay() {
    let keys = Keys::default();
    for crash_after_the_write in [false, true] {
        let conductor: Conductor = Arc::new(move |act| {
            let lasts = match act {
                Act::Write => !crash_after_the_write,
                Act::Written(_) => crash_after_the_write,
                Act::Read => false,
            };
            Ok(Duration::from_secs(if lasts { 3600 } else { 0 }))
        });
        let (store, serving) = memory::open(&keys, conductor);
        let mut watch = store.watch();
        let serving = tokio::spawn(serving);
        let committing = tokio::spawn({
            let store = store.clone();
            async move { store.commit(put("/a/1", "x", 0)).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        serving.abort();
        assert!(matches!(committing.await.unwrap(), Err(StoreError::Closed)));
        store.died().await;
        drop(store);
        assert_eq!(watch.next().await, Ok(None), "nobody heard of it");
        assert_eq!(keys.get(&["/a/1".into()])[0].is_some(), crash_after_the_write);
    }
}

#[tokio::test]
async fn a_store_in_memory_that_is_told_to_fail_changes_nothing() {
    let keys = Keys::default();
    let conductor: Conductor = Arc::new(|act| match act {
        Act::Write => Err("no room".into()),
        Act::Written(_) | Act::Read => Ok(Duration::ZERO),
    });
    let (store, serving) = memory::open(&keys, conductor);
    tokio::spawn(serving);
    let refused = store.commit(put("/a/1", "x", 0)).await.unwrap_err();
    assert_eq!(
        Chain(&refused).to_string(),
        "the store in memory cannot commit: no room"
    );
    assert_eq!(store.get("/a/1").await.unwrap(), None);
}
