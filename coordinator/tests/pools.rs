//! Storage pools in the fleet: who owns one, what of it is stored, what is told of it while its owner is away.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use hostler_common::id::{Epoch, Fence, HostName, OperationId, PoolName};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::fleet::v1::StoragePool;
use hostler_coordinator::enroll::{self, Accepted};
use hostler_coordinator::operation::locks::Lock;
use hostler_coordinator::registry::{self, Change, HypervisorRecord, PoolRecord, Registry};
use hostler_coordinator::store::json;
use hostler_coordinator::store::{Committed, Compare, Revision, Store, Transaction};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A coordinator's store and registry, without anything that serves them.
struct Coordinator {
    store: Store,
    registry: Registry,
    _tasks: JoinSet<()>,
    _directory: Option<TempDir>,
}

impl Coordinator {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let started = Self::of(store).await;
        Self {
            _directory: Some(directory),
            ..started
        }
    }

    /// As after a restart: what is not stored is forgotten.
    async fn of(store: Store) -> Self {
        let mut tasks = JoinSet::new();
        let registry = registry::spawn(store.clone(), None, &mut tasks).await.unwrap();
        Self {
            store,
            registry,
            _tasks: tasks,
            _directory: None,
        }
    }

    async fn accept(&self, host: &str, report: agent::HostReport) -> Accepted {
        enroll::accept(&self.store, &self.registry, &name(host), report)
            .await
            .unwrap()
    }

    /// What a session of `host` does with a report.
    async fn report(&self, host: &str, epoch: u64, report: agent::HostReport) -> agent::ReportAnswer {
        let accepted = self.accept(host, report).await;
        self.registry
            .reported(&name(host), Epoch(epoch), accepted.reported);
        accepted.refused
    }

    fn connect(&self, host: &str, epoch: u64) {
        self.registry.connected(&name(host), Epoch(epoch), "1");
    }

    fn shown(&self, pool: &str) -> StoragePool {
        self.registry
            .pool(&pool.parse().unwrap(), |view| view.to_rpc())
            .unwrap()
    }

    async fn stored(&self, pool: &str) -> (PoolRecord, Revision) {
        let key = PoolRecord::key(&pool.parse().unwrap());
        let entry = self.store.get(&key).await.unwrap().unwrap();
        (json::read(&entry).unwrap(), entry.modified)
    }
}

fn name(host: &str) -> HostName {
    host.parse().unwrap()
}

fn pool(name: &str, used_bytes: u64) -> agent::PoolReport {
    agent::PoolReport {
        name: name.into(),
        backend: "btrfs".into(),
        path: format!("/srv/{name}"),
        size_bytes: 1000,
        used_bytes,
        spare_bytes: 100,
        ..Default::default()
    }
}

fn pools(pools: &[agent::PoolReport]) -> agent::HostReport {
    agent::HostReport {
        pools: pools.to_vec(),
        ..Default::default()
    }
}

fn hypervisors(ids: &[&str]) -> agent::HostReport {
    let hypervisor = |id: &&str| agent::HypervisorReport {
        id: id.to_string(),
        kind: agent::HypervisorKind::Host.into(),
        observed: agent::Observed::InService.into(),
        ..Default::default()
    };
    agent::HostReport {
        hypervisors: ids.iter().map(hypervisor).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_first_host_that_reports_a_pool_owns_it() {
    let coordinator = Coordinator::start().await;
    coordinator.connect("a", 1);
    coordinator.connect("b", 2);
    let first = coordinator.report("a", 1, pools(&[pool("tank", 1)])).await;
    assert_eq!(first, agent::ReportAnswer::default());
    let second = coordinator.report("b", 2, pools(&[pool("tank", 2)])).await;
    let refusal = &second.refused_pools[0];
    assert_eq!(refusal.name, "tank");
    assert!(refusal.reason.contains("owned by host a"), "{}", refusal.reason);
    let shown = coordinator.shown("tank");
    assert_eq!(shown.host, "a");
    assert_eq!(shown.report.unwrap().used_bytes, 1);
}

#[tokio::test]
async fn of_two_hosts_at_the_same_moment_one_owns_the_pool() {
    let coordinator = Coordinator::start().await;
    let hosts: Vec<_> = (0..8).map(|number| format!("host{number}")).collect();
    let reports = hosts
        .iter()
        .map(|host| coordinator.accept(host, pools(&[pool("tank", 1)])));
    let accepted = futures_util::future::join_all(reports).await;
    let owners = accepted.iter().filter(|one| one.reported.pools.len() == 1);
    assert_eq!(owners.count(), 1);
    let refused = accepted.iter().filter(|one| one.refused.refused_pools.len() == 1);
    assert_eq!(refused.count(), 7);
}

#[tokio::test]
async fn a_pool_and_a_hypervisor_never_share_a_name() {
    let coordinator = Coordinator::start().await;
    coordinator.report("a", 1, pools(&[pool("tank", 1)])).await;
    for host in ["a", "b"] {
        let answer = coordinator.report(host, 1, hypervisors(&["tank"])).await;
        let reason = &answer.refused[0].reason;
        assert!(reason.contains("storage pool tank of host a"), "{reason}");
    }
    coordinator.report("a", 1, hypervisors(&["hv1"])).await;
    let answer = coordinator.report("b", 1, pools(&[pool("hv1", 1)])).await;
    let reason = &answer.refused_pools[0].reason;
    assert!(reason.contains("hypervisor hv1 of host a"), "{reason}");
    // In one report, the one that is enrolled already stays; of two new ones the hypervisor is taken.
    let both = |name: &str| agent::HostReport {
        pools: vec![pool(name, 1)],
        ..hypervisors(&[name])
    };
    let answer = coordinator.report("a", 1, both("tank")).await;
    assert_eq!((answer.refused.len(), answer.refused_pools.len()), (1, 0));
    let answer = coordinator.report("a", 1, both("new")).await;
    assert_eq!((answer.refused.len(), answer.refused_pools.len()), (0, 1));
}

#[tokio::test]
async fn a_pool_and_a_hypervisor_at_the_same_moment_do_not_get_one_name_either() {
    let coordinator = Coordinator::start().await;
    for round in 0..20 {
        let contested = format!("name{round}");
        let (one, other) = tokio::join!(
            coordinator.accept("a", pools(&[pool(&contested, 1)])),
            coordinator.accept("b", hypervisors(&[&contested])),
        );
        let taken = one.reported.pools.len() + other.reported.hypervisors.len();
        assert_eq!(taken, 1, "{one:?} {other:?}");
        let keys = vec![
            PoolRecord::key(&contested.parse().unwrap()),
            HypervisorRecord::key(&contested.parse().unwrap()),
        ];
        let stored = coordinator.store.get_many(keys).await.unwrap();
        assert_eq!(stored.iter().flatten().count(), 1);
    }
}

#[tokio::test]
async fn a_host_owns_no_more_than_eight_pools() {
    let coordinator = Coordinator::start().await;
    let many: Vec<_> = (0..9).map(|number| pool(&format!("pool{number}"), 1)).collect();
    let answer = coordinator.report("a", 1, pools(&many)).await;
    assert_eq!(answer.refused_pools.len(), 1);
    assert_eq!(coordinator.registry.map_pools(|_| ()).len(), 8);
    let again = coordinator.report("a", 1, pools(&many)).await;
    assert_eq!(again, answer, "those that are enrolled stay");
}

#[tokio::test]
async fn figures_are_live_and_the_store_is_written_only_for_more() {
    let coordinator = Coordinator::start().await;
    coordinator.connect("a", 1);
    coordinator.report("a", 1, pools(&[pool("tank", 1)])).await;
    let (record, first) = coordinator.stored("tank").await;
    assert_eq!(record.report, pool("tank", 1));
    let mut changes = coordinator.registry.changes();
    coordinator.report("a", 1, pools(&[pool("tank", 2)])).await;
    assert_eq!(coordinator.stored("tank").await.1, first, "not for what it uses");
    let shown = coordinator.shown("tank");
    assert_eq!(shown.report.unwrap().used_bytes, 2);
    assert_eq!(shown.changed, Some(record.changed_at.into()));
    assert!(matches!(changes.try_recv(), Ok(Change::Pool(name)) if name.as_str() == "tank"));
    coordinator.report("a", 1, pools(&[pool("tank", 2)])).await;
    assert!(changes.try_recv().is_err(), "nothing is told when nothing is new");
    let larger = agent::PoolReport {
        size_bytes: 2000,
        ..pool("tank", 3)
    };
    coordinator
        .report("a", 1, pools(std::slice::from_ref(&larger)))
        .await;
    let (record, second) = coordinator.stored("tank").await;
    assert!(second > first);
    assert_eq!(record.report, larger, "the figures go along");
}

#[tokio::test]
async fn while_its_owner_is_away_the_last_figures_are_shown() {
    let coordinator = Coordinator::start().await;
    coordinator.connect("a", 1);
    coordinator.report("a", 1, pools(&[pool("tank", 1)])).await;
    coordinator.report("a", 1, pools(&[pool("tank", 2)])).await;
    assert_eq!(coordinator.shown("tank").reason, "");
    coordinator.registry.disconnected(&name("a"), Epoch(1));
    let away = coordinator.shown("tank");
    assert!(!away.connected);
    assert!(away.reason.contains("host a is not connected"), "{}", away.reason);
    assert_eq!(away.report.unwrap().used_bytes, 2);
    coordinator.connect("a", 2);
    let back = coordinator.shown("tank");
    assert!(back.connected);
    assert!(back.reason.contains("does not report it"), "{}", back.reason);
    assert_eq!(back.report.unwrap().used_bytes, 2);
    // A restart remembers what is stored.
    let restarted = Coordinator::of(coordinator.store.clone()).await;
    let shown = restarted.shown("tank");
    assert_eq!(shown.report.unwrap().used_bytes, 1);
    assert!(
        shown.reason.contains("since the coordinator started"),
        "{}",
        shown.reason
    );
    assert!(shown.is_default);
}

#[tokio::test]
async fn a_pool_stays_listed_when_its_owner_no_longer_names_it() {
    let coordinator = Coordinator::start().await;
    coordinator.connect("a", 1);
    coordinator.report("a", 1, pools(&[pool("tank", 1)])).await;
    coordinator.report("a", 1, pools(&[])).await;
    let shown = coordinator.shown("tank");
    assert!(
        shown
            .reason
            .contains("host a is connected but does not report it"),
        "{}",
        shown.reason
    );
    assert_eq!(shown.report.unwrap(), pool("tank", 1));
}

#[tokio::test]
async fn a_pool_in_trouble_says_why_and_keeps_its_figures() {
    let coordinator = Coordinator::start().await;
    coordinator.connect("a", 1);
    coordinator.report("a", 1, pools(&[pool("tank", 1)])).await;
    coordinator.report("a", 1, pools(&[pool("tank", 7)])).await;
    let trouble = agent::PoolReport {
        problem: "/srv/tank is not mounted".into(),
        size_bytes: 0,
        used_bytes: 0,
        spare_bytes: 0,
        ..pool("tank", 0)
    };
    coordinator.report("a", 1, pools(&[trouble])).await;
    let shown = coordinator.shown("tank");
    assert_eq!(shown.reason, "/srv/tank is not mounted");
    let report = shown.report.unwrap();
    assert_eq!(
        (report.size_bytes, report.used_bytes, report.spare_bytes),
        (1000, 7, 100)
    );
}

#[tokio::test]
async fn a_lock_is_told_as_a_change_of_what_it_locks() {
    let coordinator = Coordinator::start().await;
    let both = agent::HostReport {
        pools: vec![pool("tank", 1)],
        ..hypervisors(&["hv1"])
    };
    coordinator.report("a", 1, both).await;
    let mut changes = coordinator.registry.changes();
    let attention = OperationId::generate();
    for resource in ["tank", "hv1", "unknown"] {
        let lock = Lock {
            fence: Fence(1),
            queue: Vec::new(),
            attention: Some(attention),
        };
        let key = Lock::key(&resource.parse().unwrap());
        let transaction = Transaction {
            compares: vec![Compare {
                key: key.clone(),
                modified: Revision(0),
            }],
            writes: vec![json::put(key, &lock)],
        };
        let committed = coordinator.store.commit(transaction).await.unwrap();
        assert!(matches!(committed, Committed::At(_)));
    }
    assert!(matches!(changes.recv().await, Ok(Change::Pool(name)) if name.as_str() == "tank"));
    assert!(matches!(changes.recv().await, Ok(Change::Hypervisor(id)) if id.as_str() == "hv1"));
    assert!(matches!(changes.recv().await, Ok(Change::Operation(other)) if other.as_str() == "unknown"));
    let reason = coordinator.shown("tank").reason;
    assert!(
        reason.starts_with("tank needs attention since operation"),
        "{reason}"
    );
}

#[tokio::test]
async fn pools_are_read_again_after_a_restart() {
    let coordinator = Coordinator::start().await;
    coordinator
        .report("a", 1, pools(&[pool("tank", 1), pool("archive", 1)]))
        .await;
    let restarted = Coordinator::of(coordinator.store.clone()).await;
    let names = restarted.registry.map_pools(|view| view.record.name.to_string());
    assert_eq!(names, ["archive", "tank"]);
    let unknown: PoolName = "other".parse().unwrap();
    assert!(restarted.registry.pool(&unknown, |_| ()).is_none());
    let why = restarted.registry.default_pool().unwrap_err().to_string();
    assert!(why.contains("(archive, tank)"), "{why}");
}

#[test]
fn a_pool_that_the_first_version_stored_is_still_read() {
    let pool: PoolRecord = serde_json::from_str(include_str!("frozen/pool-1.json")).unwrap();
    assert_eq!(PoolRecord::key(&pool.name), "/pools/tank");
    assert_eq!(pool.report.devices[1].role(), agent::DeviceRole::Refused);
    assert_eq!(pool.report.size_bytes, 8 << 30);
    let sparse: PoolRecord = serde_json::from_str(
        r#"{"name":"tank","host":"a","report":{"name":"tank"},"enrolled_at":1,"changed_at":1}"#,
    )
    .unwrap();
    assert_eq!(sparse.report.devices, []);
}
