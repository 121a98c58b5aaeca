//! An admin takes off the list what its agent is about to report: one of the two comes first, and nothing that counts as
//! reported is ever missing from the list.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::id::{Epoch, HostName, HypervisorId, PoolName};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_coordinator::enroll::{self, Accepted};
use hostler_coordinator::registry::{self, Listing, Registry};
use hostler_coordinator::site::expunge::{self, ExpungeError};
use hostler_coordinator::store::Store;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A store with its registry, and a host that has just connected.
struct Coordinator {
    store: Store,
    registry: Registry,
    epoch: Epoch,
    _tasks: JoinSet<()>,
    _directory: TempDir,
}

impl Coordinator {
    /// The host has reported its hypervisor and its pool before, and its newest session has not yet.
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut tasks = JoinSet::new();
        let registry = registry::spawn(store.clone(), None, &mut tasks).await.unwrap();
        let mut coordinator = Self {
            store,
            registry,
            epoch: Epoch(0),
            _tasks: tasks,
            _directory: directory,
        };
        coordinator.connect();
        assert_eq!(coordinator.report().await, Listing::Listed);
        coordinator.connect();
        coordinator
    }

    /// A new session begins.
    fn connect(&mut self) {
        self.registry.disconnected(&host(), self.epoch);
        self.epoch.0 += 1;
        self.registry.connected(&host(), self.epoch, "1");
    }

    async fn accept(&self) -> Accepted {
        let report = agent::HostReport {
            hypervisors: vec![agent::HypervisorReport {
                id: "hv1".into(),
                kind: agent::HypervisorKind::Host.into(),
                observed: agent::Observed::InService.into(),
                ..Default::default()
            }],
            pools: vec![agent::PoolReport {
                name: "tank".into(),
                backend: "btrfs".into(),
                path: "/srv/tank".into(),
                size_bytes: 1000,
                ..Default::default()
            }],
            ..Default::default()
        };
        enroll::accept(&self.store, &self.registry, &host(), report)
            .await
            .unwrap()
    }

    /// The second half of what a session does with a report.
    fn take(&self, accepted: Accepted) -> Listing {
        self.registry.reported(&host(), self.epoch, accepted.reported)
    }

    /// Both halves.
    async fn report(&self) -> Listing {
        let accepted = self.accept().await;
        self.take(accepted)
    }

    async fn expunge(&self) -> Result<(), ExpungeError> {
        expunge::hypervisor(&self.store, &self.registry, &hypervisor()).await
    }

    async fn expunge_pool(&self) -> Result<(), ExpungeError> {
        expunge::pool(&self.store, &self.registry, &pool()).await
    }

    fn lists_all(&self) -> bool {
        self.registry.record(&hypervisor()).is_some() && self.registry.pool_record(&pool()).is_some()
    }
}

fn host() -> HostName {
    "h1".parse().unwrap()
}

fn hypervisor() -> HypervisorId {
    "hv1".parse().unwrap()
}

fn pool() -> PoolName {
    "tank".parse().unwrap()
}

#[tokio::test]
async fn a_report_that_was_accepted_before_an_expunge_and_is_taken_after_it_does_not_count() {
    let mut coordinator = Coordinator::start().await;
    let unchanged = coordinator.accept().await;
    coordinator.expunge().await.unwrap();
    assert_eq!(coordinator.take(unchanged), Listing::Expunged);
    coordinator.connect();
    assert_eq!(
        coordinator.report().await,
        Listing::Listed,
        "and the next one enrols it anew"
    );
    assert!(coordinator.lists_all());
    coordinator.connect();
    let unchanged = coordinator.accept().await;
    coordinator.expunge_pool().await.unwrap();
    assert_eq!(coordinator.take(unchanged), Listing::Expunged, "of a pool, too");
}

#[tokio::test]
async fn what_is_reported_first_stays_and_what_leaves_first_is_reported_by_nobody() {
    let coordinator = Coordinator::start().await;
    let name = (&hypervisor()).into();
    let leaving = coordinator.registry.leave(&name).unwrap();
    let twice = coordinator.registry.leave(&name).unwrap();
    drop(leaving);
    assert_eq!(
        coordinator.report().await,
        Listing::Expunged,
        "the other still takes it off"
    );
    drop(twice);
    assert_eq!(coordinator.report().await, Listing::Listed);
    let refused = coordinator.expunge().await;
    assert!(
        matches!(refused, Err(ExpungeError::Reported { .. })),
        "{refused:?}"
    );
    let refused = coordinator.expunge_pool().await;
    assert!(
        matches!(refused, Err(ExpungeError::Reported { .. })),
        "{refused:?}"
    );
    assert!(coordinator.lists_all());
}

#[tokio::test]
async fn whoever_is_quicker_what_counts_as_reported_is_listed() {
    let mut coordinator = Coordinator::start().await;
    for _ in 0..200 {
        coordinator.connect();
        let (of_hypervisor, of_pool, listing) = tokio::join!(
            coordinator.expunge(),
            coordinator.expunge_pool(),
            coordinator.report()
        );
        if listing == Listing::Expunged {
            assert!(of_hypervisor.is_ok() || of_pool.is_ok());
            coordinator.connect();
            assert_eq!(coordinator.report().await, Listing::Listed);
        }
        assert!(coordinator.lists_all());
    }
}
