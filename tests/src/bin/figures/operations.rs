//! Durable operations a second through the whole path, against the commits of the store alone on the same disk.
//!
//! A coordinator as a process of its own, agents that do nothing and clients that each create one hypervisor again and
//! again; each on a connection over mutual TLS. The comparison is one client of the same store in this process, that
//! commits one transaction after the other. Both write what an operation's step through its life writes: its record and
//! its lock. They go in turns, so that whatever else the machine does meets both alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hostler_common::id::OperationId;
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_coordinator::store::{Committed, Compare, Revision, Store, Transaction, Write};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::served::Served;
use crate::{nothing, table};

const AIM: f64 = 0.8;
const ROUNDS: usize = 5;
const HOSTS: usize = 64;
/// Each creates a hypervisor of its own.
const CLIENTS: usize = 256;
/// Of the clients, as through a few proxies.
const CONNECTIONS: usize = 16;
const WARMING_UP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(3);
/// Commits of one operation: it is accepted, taken by its agent, and ends.
const COMMITS: f64 = 3.0;
/// A record and a lock as they are in the store, in bytes.
const RECORD: usize = 900;
const LOCK: usize = 90;

/// `disk` says which disk that is, for the rows.
///
/// # Errors
/// When an operation or a commit fails.
pub(crate) async fn measure(disk: &str) -> anyhow::Result<()> {
    let served = Served::start().await;
    let mut agents = JoinSet::new();
    for host in 0..HOSTS {
        let hypervisors = (host..CLIENTS).step_by(HOSTS).map(hypervisor).collect();
        let host = format!("h{host}");
        let channel = served.channel(&format!("agent/{host}"))?;
        agents.spawn(nothing::serve(channel, host, hypervisors));
    }
    served.until_listed(CLIENTS).await?;
    let store = Store::open(&served.site.path("raw"))?;
    let (mut whole, mut single, mut grouped, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first round warms up and does not count.
    for round in 0..=ROUNDS {
        let operations = operations(&served).await?;
        let commits = (commits(&store, 1).await?, commits(&store, CLIENTS).await?);
        if let Some(ended) = agents.try_join_next() {
            ended?.context("an agent ended")?;
        }
        if round > 0 {
            whole.push(operations.rate);
            cpu.push(operations.cpu.as_secs_f64() * 1e6);
            single.push(commits.0);
            grouped.push(commits.1);
        }
    }
    let (whole, single, grouped) = (middle(whole), middle(single), middle(grouped));
    table::aimed_at_least(
        &format!("operations / single commits a second, {disk}"),
        whole / single,
        AIM,
    );
    table::told(
        "the same, commits of operations / single commits",
        COMMITS * whole / single,
        "",
    );
    table::told(
        &format!("operations a second, {CLIENTS} clients, {HOSTS} agents"),
        whole,
        "",
    );
    table::told("CPU of the coordinator for one operation", middle(cpu), " µs");
    table::told("commits a second, one client, one after the other", single, "");
    table::told(
        &format!("commits a second, {CLIENTS} clients, grouped"),
        grouped,
        "",
    );
    Ok(())
}

fn hypervisor(number: usize) -> String {
    format!("hv-{number}")
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

/// What one window of the whole path came to.
struct Operations {
    /// Completed, a second.
    rate: f64,
    /// Of the coordinator, for one.
    cpu: Duration,
}

async fn operations(served: &Served) -> anyhow::Result<Operations> {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let channels: Vec<_> = (0..CONNECTIONS)
        .map(|number| served.channel(&format!("client/operator/c{number}")))
        .collect::<Result<_, _>>()?;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let channel = channels[number % CONNECTIONS].clone();
        let (stop, done) = (stop.clone(), done.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                create(channel.clone(), hypervisor(number)).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(WARMING_UP).await;
    let (begun, before, cpu) = (Instant::now(), done.load(Ordering::Relaxed), served.cpu()?);
    tokio::time::sleep(WINDOW).await;
    let completed = done.load(Ordering::Relaxed) - before;
    let (took, cpu) = (begun.elapsed(), served.cpu()? - cpu);
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let completed = u32::try_from(completed)?;
    ensure!(completed > 0, "no operation was completed");
    Ok(Operations {
        rate: f64::from(completed) / took.as_secs_f64(),
        cpu: cpu / completed,
    })
}

async fn create(channel: Channel, id: String) -> anyhow::Result<()> {
    let request = rpc::CreateHypervisorRequest { id };
    let stream = OperationsServiceClient::new(channel)
        .create_hypervisor(request)
        .await;
    let mut stream = stream?.into_inner();
    let mut last = None;
    while let Some(said) = stream.message().await? {
        last = Some(said);
    }
    let last = last.context("the stream said nothing")?;
    ensure!(
        last.state() == rpc::OperationState::Completed,
        "it ended as {:?}: {}",
        last.state(),
        last.msg
    );
    Ok(())
}

/// Commits a second, by so many clients that each commit one transaction after the other.
async fn commits(store: &Store, clients: usize) -> anyhow::Result<f64> {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (store, stop, done) = (store.clone(), stop.clone(), done.clone());
        tasks.spawn(async move {
            let lock = format!("/locks/{}", OperationId::generate());
            let mut lock_modified = Revision(0);
            while !stop.load(Ordering::Relaxed) {
                let record = format!("/operations/{}", OperationId::generate());
                let mut record_modified = Revision(0);
                for _ in 0..3 {
                    let transaction = transaction(&record, record_modified, &lock, lock_modified);
                    let Committed::At(revision) = store.commit(transaction).await? else {
                        anyhow::bail!("a commit conflicts")
                    };
                    (record_modified, lock_modified) = (revision, revision);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
    }
    tokio::time::sleep(WARMING_UP).await;
    let (begun, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(WINDOW).await;
    let committed = done.load(Ordering::Relaxed) - before;
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(f64::from(u32::try_from(committed)?) / took.as_secs_f64())
}

/// As of a step in an operation's life.
fn transaction(record: &str, record_modified: Revision, lock: &str, lock_modified: Revision) -> Transaction {
    let of = |key: &str, modified, bytes| {
        let (key, value) = (key.to_owned(), vec![b'x'; bytes]);
        let compare = Compare {
            key: key.clone(),
            modified,
        };
        (compare, Write::Put { key, value })
    };
    let record = of(record, record_modified, RECORD);
    let lock = of(lock, lock_modified, LOCK);
    Transaction {
        compares: vec![lock.0, record.0],
        writes: vec![lock.1, record.1],
    }
}
