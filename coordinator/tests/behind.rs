//! The engine beside a registry that has fallen behind the store: it decides as if it were not there.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hostler_common::id::{Fence, HostName, OperationId, ProcessToken};
use hostler_common::operation::pack;
use hostler_common::rpc::operations::v1::{CreateHypervisorRequest, DestroyHypervisorRequest};
use hostler_common::units::UnixMillis;
use hostler_coordinator::operation::engine::{Engine, EngineError};
use hostler_coordinator::operation::state::{End, Event, IllegalTransition, Limits, Proposal};
use hostler_coordinator::operation::wish::{Asked, Asker, Submitted, Wanted};
use hostler_coordinator::registry::{self, Registry};
use hostler_coordinator::store::Store;
use hostler_coordinator::store::memory::{self, Act, Conductor, Keys};
use prost::Name;
use tempfile::TempDir;
use tokio::task::JoinSet;

const LIMITS: Limits = Limits { max_attempts: 3 };

struct Rig {
    engine: Engine,
    store: Store,
    registry: Registry,
    /// The registry follows until they are gone.
    following: JoinSet<()>,
    _directory: TempDir,
}

impl Rig {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Self::on(store, directory).await
    }

    async fn on(store: Store, directory: TempDir) -> Self {
        let mut following = JoinSet::new();
        let registry = registry::spawn(store.clone(), None, &mut following)
            .await
            .unwrap();
        Self {
            engine: Engine::new(store.clone(), registry.clone(), LIMITS),
            store,
            registry,
            following,
            _directory: directory,
        }
    }

    /// From now on its registry shows what it shows; `id` as it is now.
    async fn fall_behind_after(&mut self, id: OperationId) {
        let (_, revision) = self.engine.get_at(id).await.unwrap();
        self.registry.taken(revision).await;
        self.following.shutdown().await;
    }

    /// Another engine on the same store, whose registry is new.
    async fn beside(&self, following: &mut JoinSet<()>) -> Engine {
        let registry = registry::spawn(self.store.clone(), None, following)
            .await
            .unwrap();
        Engine::new(self.store.clone(), registry, LIMITS)
    }

    async fn submit<M: Name>(&self, message: M) -> Submitted {
        let wanted = Wanted {
            asked: Asked::new(pack(&message)).unwrap(),
            resource: "hv1".parse().unwrap(),
            host: host(),
        };
        let asker = Asker {
            identity: "ada".to_owned(),
            reason: String::new(),
        };
        self.engine.submit(&[wanted], &asker).await.unwrap().remove(0)
    }

    async fn create(&self) -> Submitted {
        let id = "hv1".to_owned();
        self.submit(CreateHypervisorRequest { id }).await
    }

    async fn destroy(&self) -> Submitted {
        let id = "hv1".to_owned();
        self.submit(DestroyHypervisorRequest { id }).await
    }
}

fn host() -> HostName {
    "h1".parse().unwrap()
}

fn new(submitted: Submitted) -> OperationId {
    match submitted {
        Submitted::New(record) => record.id,
        other => panic!("not new: {other:?}"),
    }
}

fn proposal(token: &ProcessToken) -> Proposal {
    Proposal {
        token: token.clone(),
        fence: Fence(0),
        newest_fence: Fence(0),
        lock_for_seconds: 30,
        is_disabled_cancel: false,
        now: UnixMillis::now(),
    }
}

#[tokio::test]
async fn a_whole_life_goes_on_while_the_registry_shows_nothing_of_it() {
    let mut rig = Rig::start().await;
    rig.following.shutdown().await;
    let id = new(rig.create().await);
    assert!(matches!(rig.create().await, Submitted::Attached(attached) if attached == id));
    let waiting = new(rig.destroy().await);
    let token = ProcessToken::generate();
    let early = rig.engine.propose(waiting, &host(), proposal(&token), "").await;
    assert!(matches!(early, Err(EngineError::NotItsTurn { .. })), "{early:?}");
    let lease = rig
        .engine
        .propose(id, &host(), proposal(&token), "")
        .await
        .unwrap();
    let finished = Event::Finished {
        token,
        fence: lease.fence,
        end: End::Completed,
    };
    let ended = rig
        .engine
        .apply(id, Some(&host()), finished, |_| "done".to_owned())
        .await;
    assert_eq!(ended.unwrap().end(), Some(End::Completed));
}

#[tokio::test]
async fn what_the_registry_still_shows_is_not_gone_by() {
    let mut rig = Rig::start().await;
    let id = new(rig.create().await);
    let mut following = JoinSet::new();
    let beside = rig.beside(&mut following).await;
    rig.fall_behind_after(id).await;
    beside.cancel(id, "bob").await.unwrap();
    let token = ProcessToken::generate();
    let late = rig.engine.propose(id, &host(), proposal(&token), "").await;
    let ended = matches!(
        late,
        Err(EngineError::Illegal {
            source: IllegalTransition::Ended,
            ..
        })
    );
    assert!(ended, "{late:?}");
    let again = new(rig.create().await);
    assert_ne!(again, id, "nobody is attached to what has ended");
}

#[tokio::test]
async fn a_cancel_that_the_registry_shows_does_not_hide_the_end() {
    let mut rig = Rig::start().await;
    let id = new(rig.create().await);
    let token = ProcessToken::generate();
    let lease = rig
        .engine
        .propose(id, &host(), proposal(&token), "")
        .await
        .unwrap();
    rig.engine.cancel(id, "bob").await.unwrap();
    let mut following = JoinSet::new();
    let beside = rig.beside(&mut following).await;
    rig.fall_behind_after(id).await;
    let finished = Event::Finished {
        token,
        fence: lease.fence,
        end: End::Completed,
    };
    beside
        .apply(id, Some(&host()), finished, |_| "done".to_owned())
        .await
        .unwrap();
    let repeated = rig.engine.cancel(id, "bob").await;
    assert!(
        matches!(repeated, Err(EngineError::Illegal { .. })),
        "{repeated:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_leaves_the_queue_while_it_is_barred_does_not_hide_that_attention_is_needed() {
    const READ: Duration = Duration::from_secs(10);
    let slow = Arc::new(AtomicBool::new(false));
    let reads = slow.clone();
    let conductor: Conductor = Arc::new(move |act| match act {
        Act::Read if reads.load(Ordering::Relaxed) => Ok(READ),
        Act::Read | Act::Write | Act::Written(_) => Ok(Duration::ZERO),
    });
    let (store, serving) = memory::open(&Keys::default(), conductor);
    tokio::spawn(serving);
    let mut rig = Rig::on(store, TempDir::new().unwrap()).await;
    rig.following.shutdown().await;
    let id = new(rig.create().await);
    let waiting = new(rig.destroy().await);
    let token = ProcessToken::generate();
    let lease = rig
        .engine
        .propose(id, &host(), proposal(&token), "")
        .await
        .unwrap();
    let mut following = JoinSet::new();
    let beside = rig.beside(&mut following).await;
    slow.store(true, Ordering::Relaxed);
    let finished = Event::Finished {
        token,
        fence: lease.fence,
        end: End::NeedsAttention,
    };
    let host = host();
    let ending = rig
        .engine
        .apply(id, Some(&host), finished, |_| "stuck".to_owned());
    let cancelling = async {
        // The operation and the lock are read by then, what waits is not.
        tokio::time::sleep(READ * 5 / 2).await;
        beside.cancel(waiting, "bob").await
    };
    let (ended, cancelled) = tokio::join!(ending, cancelling);
    assert_eq!(cancelled.unwrap().end(), Some(End::Failed));
    assert_eq!(ended.unwrap().end(), Some(End::NeedsAttention));
}
