//! A disk that refuses: every single write of the coordinator's store and of the agent's directory fails once, and
//! for good. Nothing that was acknowledged is lost, and what is said names the file.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_common::rpc::operations::v1::{
    CreateHypervisorRequest, DestroyHypervisorRequest, ListHypervisorsRequest, OperationState,
};
use hostler_coordinator::registry::HypervisorRecord;
use hostler_coordinator::store::{Store, Transaction, json};
use hostler_pki::{ChannelOptions, Credentials};
use hostler_tests::disk::{EIO, ENOSPC, Fault, Shim, copy_dir};
use hostler_tests::fleet::collect;
use hostler_tests::programs::{Process, Site, command};
use hostler_tests::wait;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// More than a store's changes ever take: the sweep ends when nothing failed any more.
const NEVER: u64 = 1_000_000;

fn channel(site: &Site, port: u16) -> Channel {
    let credentials = Credentials::load(&site.ca.files("client/admin/test")).unwrap();
    let config = hostler_pki::client_config(&credentials).unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    hostler_pki::channel(&address, config, ChannelOptions::default())
}

/// The coordinator of `site` with a failing disk, or a good one. None when it did not come up.
async fn coordinator(site: &Site, fault: Option<(&Shim, Fault)>) -> Result<(Process, u16), String> {
    let log = site.path("coordinator.log");
    let _ = std::fs::remove_file(&log);
    let mut start = command("hostler-coordinator");
    start.arg("--config").arg(site.path("coordinator.toml"));
    if let Some((shim, fault)) = fault {
        shim.arm(&mut start, &site.path("data"), fault, &site.path("hit"));
    }
    let process = std::sync::Mutex::new(Process::start(&mut start, &log));
    let port = wait::until("the coordinator serves or ends", || async {
        let printed = process.lock().unwrap().printed();
        let served = printed
            .lines()
            .find_map(|line| line.split_once("serving address=127.0.0.1:"))
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u16>().ok());
        match served {
            Some(port) => Some(Ok(port)),
            None if process.lock().unwrap().is_running() => None,
            None => Some(Err(process.lock().unwrap().printed())),
        }
    })
    .await?;
    Ok((process.into_inner().unwrap(), port))
}

fn local_site() -> Site {
    let site = Site::make();
    let text = std::fs::read_to_string(site.path("coordinator.toml")).unwrap();
    let any_port = text.replace(&format!("127.0.0.1:{}", site.port), "127.0.0.1:0");
    site.write("coordinator.toml", &any_port);
    site
}

/// A store with a hypervisor, as a killed coordinator leaves it: its log is about to be moved into the file.
async fn store_with_a_long_log(dir: &Path) {
    let work = tempfile::TempDir::new().unwrap();
    let store = Store::open(work.path()).unwrap();
    let record: HypervisorRecord =
        serde_json::from_str(include_str!("../../coordinator/tests/frozen/hypervisor-1.json")).unwrap();
    let mut put = Transaction::default();
    put.writes
        .push(json::put(HypervisorRecord::key(&record.id), &record));
    store.commit(put).await.unwrap();
    let log = work.path().join("hostler.db-wal");
    let mut number = 0;
    // SQLite moves a log of 1000 pages into the file with the next commit.
    while log.metadata().unwrap().len() < 985 * 4120 {
        let mut put = Transaction::default();
        let fill = "x".repeat(20_000);
        put.writes.push(json::put(format!("/filler/{number}"), &fill));
        store.commit(put).await.unwrap();
        number += 1;
    }
    copy_dir(work.path(), dir);
}

/// A lock is taken, renewed and given back, each durable before it is answered.
struct Locker {
    fleet: FleetServiceClient<Channel>,
    /// What was acknowledged of each operation last.
    acknowledged: BTreeMap<String, OperationState>,
    refusals: Vec<Status>,
}

impl Locker {
    async fn work(&mut self) {
        for _ in 0..2 {
            for seconds in [600, 601, 0] {
                let request = rpc::ProposeOperationRequest {
                    proposal: Some(ProposeOperationRequest {
                        name: "hv7".into(),
                        lock_for_seconds: seconds,
                        proposing_peer_token: "mine".into(),
                        ..Default::default()
                    }),
                    reason: String::new(),
                };
                match self.fleet.propose_operation(request).await {
                    Ok(answer) => {
                        let operation = answer.into_inner().operation.unwrap();
                        let state = operation.state();
                        self.acknowledged.insert(operation.id, state);
                    }
                    Err(status) => self.refusals.push(status),
                }
            }
        }
    }
}

async fn history(fleet: &mut FleetServiceClient<Channel>) -> BTreeMap<String, OperationState> {
    let request = rpc::ListOperationsRequest {
        page_size: 1000,
        ..Default::default()
    };
    let answer = fleet.list_operations(request).await.unwrap().into_inner();
    let told = answer.operations.into_iter();
    told.map(|operation| (operation.id.clone(), operation.state()))
        .collect()
}

/// One life of a coordinator with `fault`, one without. Whether anything failed.
async fn coordinator_survives(site: &Site, base: &Path, shim: &Shim, fault: Fault) -> bool {
    copy_dir(base, &site.path("data"));
    let hit = site.path("hit");
    let _ = std::fs::remove_file(&hit);
    let mut acknowledged = BTreeMap::new();
    match coordinator(site, Some((shim, fault))).await {
        Err(said) => {
            // One sentence that names the thing, and no panic.
            assert!(
                said.contains("/data/hostler.") && !said.contains("panicked"),
                "{fault:?}: {said}"
            );
        }
        Ok((mut process, port)) => {
            let mut fleet = FleetServiceClient::new(channel(site, port));
            let mut locker = Locker {
                fleet: fleet.clone(),
                acknowledged: BTreeMap::new(),
                refusals: Vec::new(),
            };
            locker.work().await;
            for refusal in &locker.refusals {
                // Two kinds follow from a change that was refused: nothing to give back, and a lock that is there.
                let follows = refusal.code() == Code::FailedPrecondition;
                let named = refusal.code() == Code::Unavailable && refusal.message().contains("hostler.db");
                assert!(follows || named, "{fault:?}: {refusal:?}");
            }
            let mut operations = OperationsServiceClient::new(channel(site, port));
            let list = operations.list_hypervisors(ListHypervisorsRequest {}).await;
            let list = list.unwrap().into_inner().hypervisors;
            assert_eq!(list.len(), 1, "{fault:?}: it still lists");
            let live = history(&mut fleet).await;
            for (id, state) in &locker.acknowledged {
                assert_eq!(live.get(id), Some(state), "{fault:?}: before the restart");
            }
            assert!(process.is_running(), "{fault:?}: {}", process.printed());
            process.kill();
            acknowledged = locker.acknowledged;
        }
    }
    let (process, port) = coordinator(site, None).await.unwrap();
    let kept = history(&mut FleetServiceClient::new(channel(site, port))).await;
    let told = std::fs::read_to_string(&hit).unwrap_or_default();
    for (id, state) in &acknowledged {
        assert_eq!(
            kept.get(id),
            Some(state),
            "{fault:?} at {told}: after the restart"
        );
    }
    process.kill();
    hit.exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_coordinator_whose_disk_fails_at_any_write_loses_nothing_and_says_so() {
    let shim = Arc::new(Shim::build());
    let base = Arc::new(tempfile::TempDir::new().unwrap());
    store_with_a_long_log(base.path()).await;
    let sweeps = [(EIO, 1), (ENOSPC, NEVER)].map(|(errno, lasts)| {
        let (shim, base) = (shim.clone(), base.clone());
        tokio::spawn(async move {
            let site = local_site();
            let (mut at, mut step) = (1, 1);
            loop {
                let fault = Fault { at, lasts, errno };
                if !coordinator_survives(&site, base.path(), &shim, fault).await {
                    break at;
                }
                // The first commits one by one; then the log is moved into the file, which is much of the same.
                if at > 40 {
                    step = 61;
                }
                at += step;
            }
        })
    });
    for sweep in sweeps {
        let calls = sweep.await.unwrap();
        assert!(
            calls > 40,
            "the sweep ended after {calls} calls: the fault is not in the way"
        );
    }
}

/// A host whose activation counts its turns.
fn host(site: &Site) -> String {
    let script = site.write(
        "activation.sh",
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 9\ncase $1 in\nstart) echo start >>turns; touch active ;;\nstop) rm -f active ;;\nstatus) test -e active ;;\nesac\n",
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.display();
    format!(
        "[[hypervisor]]\nid = 'hv1'\nkind = 'host'\nnetworks = [{{ name = 'default' }}]\nactivation = {{ type = 'exec', start = ['{script}', 'start'], stop = ['{script}', 'stop'], status = ['{script}', 'status'] }}\n"
    )
}

/// A site with a coordinator, whose agent is started with a failing disk again and again.
struct Hosted {
    site: Site,
    _coordinator: Process,
    fleet: FleetServiceClient<Channel>,
    operations: OperationsServiceClient<Channel>,
}

impl Hosted {
    async fn begin() -> Self {
        let site = Site::make();
        // Without any domain: what runs would hold up the destroy.
        let libvirt = site.write(
            "libvirt.xml",
            "<node><network><name>default</name><bridge name='virbr7'/><ip address='192.168.77.1' netmask='255.255.255.0'/></network></node>",
        );
        site.configure_agent(&format!("test://{}", libvirt.display()), &host(&site));
        let coordinator = site.coordinator().await;
        let channel = channel(&site, site.port);
        std::fs::create_dir(site.path("agent-state")).unwrap();
        Self {
            fleet: FleetServiceClient::new(channel.clone()),
            operations: OperationsServiceClient::new(channel),
            site,
            _coordinator: coordinator,
        }
    }

    async fn until_ended(&mut self) -> rpc::Operation {
        let fleet = self.fleet.clone();
        wait::until("the operation ends", || async {
            let request = rpc::ListOperationsRequest {
                page_size: 1,
                ..Default::default()
            };
            let answer = fleet.clone().list_operations(request).await.ok()?;
            let newest = answer.into_inner().operations.pop()?;
            newest.ended.is_some().then_some(newest)
        })
        .await
    }

    /// One create by an agent with `fault`, then an agent without: whether anything failed.
    async fn survives(&mut self, shim: &Shim, fault: Fault) -> bool {
        let site = &self.site;
        let (hit, log) = (site.path("hit"), site.path("agent.log"));
        let _ = std::fs::remove_file(&hit);
        let _ = std::fs::remove_file(&log);
        let mut start = command("hostler-agent");
        start.arg("--config").arg(site.path("agent.toml"));
        shim.arm(&mut start, &site.path("agent-state"), fault, &hit);
        let process = std::sync::Mutex::new(Process::start(&mut start, &log));
        let came = wait::until("the agent reports or ends", || async {
            let reports = site.state("hv1").await.as_deref() == Some("out_of_service");
            let ended = !process.lock().unwrap().is_running();
            (reports || ended).then_some(reports)
        })
        .await;
        let process = process.into_inner().unwrap();
        let printed = process.printed();
        assert!(came || printed.contains("agent-state"), "{fault:?}: {printed}");
        let mut attention = None;
        if came {
            let request = CreateHypervisorRequest { id: "hv1".into() };
            let created = self.operations.create_hypervisor(request).await.unwrap();
            let said = tokio::time::timeout(Duration::from_secs(30), collect(created.into_inner())).await;
            let operation = self.until_ended().await;
            let words = format!("{fault:?}: {operation:?}, {said:?}: {}", process.printed());
            assert!(!process.printed().contains("panicked"), "{words}");
            let active = self.site.path("active").exists();
            if operation.state() == OperationState::Completed {
                assert!(active, "{words}");
            } else {
                let told = format!("{}{}", operation.message, process.printed());
                assert!(told.contains("agent-state"), "it names the file: {words}");
                assert!(operation.needs_attention || !active, "{words}");
            }
            attention = operation.needs_attention.then_some(operation.id);
        }
        let site = &self.site;
        process.kill();
        let agent = site.agent();
        if let Some(id) = attention {
            let request = rpc::ResolveOperationRequest {
                id,
                note: "looked at the host".into(),
            };
            self.fleet.resolve_operation(request).await.unwrap();
        }
        let site = &self.site;
        let listed = match site.path("active").exists() {
            true => "in_service",
            false => "out_of_service",
        };
        site.until_state("hv1", listed).await;
        if listed == "in_service" {
            let request = DestroyHypervisorRequest { id: "hv1".into() };
            let destroyed = self.operations.destroy_hypervisor(request).await.unwrap();
            let said = collect(destroyed.into_inner()).await.unwrap();
            assert_eq!(
                said.last().unwrap().0,
                OperationState::Completed,
                "{fault:?}: {said:?}"
            );
        }
        agent.kill();
        hit.exists()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_agent_whose_disk_fails_at_any_write_never_completes_what_is_not_so() {
    let shim = Arc::new(Shim::build());
    let sweeps = [(EIO, 1), (ENOSPC, NEVER)].map(|(errno, lasts)| {
        let shim = shim.clone();
        tokio::spawn(async move {
            let mut hosted = Hosted::begin().await;
            let mut at = 1;
            while hosted.survives(&shim, Fault { at, lasts, errno }).await {
                at += 1;
            }
            at
        })
    });
    for sweep in sweeps {
        let calls = sweep.await.unwrap();
        assert!(
            calls > 10,
            "the sweep ended after {calls} calls: the fault is not in the way"
        );
    }
}
