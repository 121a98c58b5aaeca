//! Backups, expands and shrinks through the whole path, against the same programs called by hand.
//!
//! It makes its own fleet of one host on a pool of loop devices. Either way works on the same data in the same run,
//! in turns; the page cache is dropped before each.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_pki::{ChannelOptions, Credentials};
use hostler_tests::pool::{Backups, LoopPool, must};
use hostler_tests::programs::Site;
use hostler_tests::wait;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::memory::Peak;
use crate::table::{self, median};

const ROUNDS: usize = 3;
/// A throughput of at least 0.97 of restic's is a time of at most 1 / 0.97 of its.
const BACKUP_AIM: f64 = 1.0 / 0.97;
const SHRINK_AIM: f64 = 1.05;
const EXPAND_AIM: f64 = 1.2;
/// MB above the idle agent.
const MEMORY_AIM: f64 = 10.0;
/// In MiB.
const DISK: u64 = 3072;
/// 768 MiB that neither compress nor repeat, in KiB.
const FILES: [u64; 96] = [8 << 10; 96];

type Fleet = FleetServiceClient<Channel>;

/// # Errors
/// When either way fails.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let site = Site::make();
    let pool = LoopPool::make(&[DISK, DISK], &[DISK]);
    pool.init_repository();
    pool.fill("data", &FILES);
    site.configure_agent("test:///default", &pool.configuration(Backups::Yes));
    let _coordinator = site.coordinator().await;
    let agent = site.agent();
    let mut fleet = client(&site)?;
    wait::until("the pool is listed", || {
        let mut fleet = fleet.clone();
        async move {
            let list = fleet
                .list_storage_pools(rpc::ListStoragePoolsRequest {})
                .await
                .ok()?;
            list.into_inner().pools.first()?.connected.then_some(())
        }
    })
    .await;
    let peak = Peak::watch(agent.id())?;
    backups(&pool, &mut fleet).await?;
    shrinks(&pool, &mut fleet).await?;
    expands(&pool, &mut fleet).await?;
    let (idle, highest) = peak.end()?;
    table::aimed(
        "Memory of the agent above idle, at its highest",
        highest - idle,
        MEMORY_AIM,
        " MB",
    );
    table::told("idle", idle, " MB");
    Ok(())
}

fn client(site: &Site) -> anyhow::Result<Fleet> {
    let credentials = Credentials::load(&site.ca.files("client/operator/figures"))?;
    let config = hostler_pki::client_config(&credentials)?;
    let address = format!("127.0.0.1:{}", site.port).parse().context("an address")?;
    Ok(FleetServiceClient::new(hostler_pki::channel(
        &address,
        config,
        ChannelOptions::default(),
    )))
}

/// A whole backup, and a second one of the same files, against the same work by hand: snapshot, backup, check,
/// retention, snapshot removed.
async fn backups(pool: &LoopPool, fleet: &mut Fleet) -> anyhow::Result<()> {
    let (mut first, mut second) = (Turns::default(), Turns::default());
    for round in 0..ROUNDS {
        for ours in [round % 2 == 0, round % 2 != 0] {
            std::fs::remove_dir_all(pool.repository())?;
            pool.init_repository();
            for turns in [&mut first, &mut second] {
                cold()?;
                let begun = Instant::now();
                match ours {
                    true => {
                        let stream = fleet.create_backup(rpc::CreateBackupRequest::default()).await?;
                        completed(stream.into_inner(), |said| (said.state(), said.msg)).await?;
                    }
                    false => backup_by_hand(pool),
                }
                turns.took(ours, begun.elapsed());
            }
        }
    }
    first.print("CreateBackup / snapshot, restic and checks by hand", BACKUP_AIM);
    second.print("the same again, nothing changed", BACKUP_AIM);
    Ok(())
}

fn backup_by_hand(pool: &LoopPool) {
    let mount = pool.mount_point();
    let snapshot = mount.join("by-hand");
    let (mount, at) = (mount.display().to_string(), snapshot.display().to_string());
    must("btrfs", &["subvolume", "snapshot", "-r", &mount, &at]);
    pool.restic(&["backup", "--json", "--tag", "by-hand", &at]);
    pool.restic(&["check", "--read-data"]);
    pool.restic(&["forget", "--tag", "by-hand", "--keep-last", "3", "--prune"]);
    must("btrfs", &["subvolume", "delete", "--commit-after", &at]);
}

/// One of two devices leaves, half of the data on it; then it comes back and the data is spread again.
async fn shrinks(pool: &LoopPool, fleet: &mut Fleet) -> anyhow::Result<()> {
    let mount = pool.mount_point().display().to_string();
    let mut turns = Turns::default();
    let mut leaves: Option<String> = None;
    for round in 0..ROUNDS {
        // The first turn tells which device Hostler removes.
        for ours in [leaves.is_none() || round % 2 == 0, round % 2 != 0] {
            let members = pool.members();
            cold()?;
            let begun = Instant::now();
            match (ours, &leaves) {
                (false, Some(device)) => drop(must("btrfs", &["device", "remove", device, &mount])),
                _ => {
                    let request = rpc::ShrinkStorageRequest {
                        max_bytes: DISK << 20,
                        ..Default::default()
                    };
                    let stream = fleet.shrink_storage(request).await?;
                    completed(stream.into_inner(), |said| (said.state(), said.msg)).await?;
                }
            }
            turns.took(ours, begun.elapsed());
            let left = pool.members();
            let gone = members.iter().find(|member| !left.contains(member));
            leaves = Some(gone.context("no device left the pool")?.clone());
            must(
                "btrfs",
                &["device", "add", leaves.as_deref().unwrap_or_default(), &mount],
            );
            must("btrfs", &["balance", "start", "--full-balance", &mount]);
        }
    }
    turns.print("ShrinkStorage of a device / btrfs device remove", SHRINK_AIM);
    Ok(())
}

/// A spare device is added; then it is removed by hand.
async fn expands(pool: &LoopPool, fleet: &mut Fleet) -> anyhow::Result<()> {
    let mount = pool.mount_point().display().to_string();
    let spare = must("readlink", &[&pool.device("disk-2").display().to_string()]);
    let spare = spare.trim();
    let mut turns = Turns::default();
    for round in 0..3 * ROUNDS {
        for ours in [round % 2 == 0, round % 2 != 0] {
            let begun = Instant::now();
            match ours {
                false => drop(must("btrfs", &["device", "add", spare, &mount])),
                true => {
                    let request = rpc::ExpandStorageRequest {
                        min_bytes: 1,
                        ..Default::default()
                    };
                    let stream = fleet.expand_storage(request).await?;
                    completed(stream.into_inner(), |said| (said.state(), said.msg)).await?;
                }
            }
            turns.took(ours, begun.elapsed());
            must("btrfs", &["device", "remove", spare, &mount]);
        }
    }
    turns.print("ExpandStorage by a device / btrfs device add", EXPAND_AIM);
    Ok(())
}

/// Nothing of what is measured is in the page cache.
fn cold() -> anyhow::Result<()> {
    must("sync", &[]);
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")
}

/// Reads a stream to its end, which must be COMPLETED.
async fn completed<R>(
    mut stream: Streaming<R>,
    read: impl Fn(R) -> (OperationState, String),
) -> anyhow::Result<()> {
    let mut last = None;
    while let Some(said) = stream
        .message()
        .await
        .map_err(|status: Status| anyhow::anyhow!("{status}"))?
    {
        last = Some(read(said));
    }
    let (state, words) = last.context("the stream said nothing")?;
    ensure!(
        state == OperationState::Completed,
        "it ended as {state:?}: {words}"
    );
    Ok(())
}

/// Times of both ways.
#[derive(Default)]
struct Turns {
    ours: Vec<Duration>,
    by_hand: Vec<Duration>,
}

impl Turns {
    fn took(&mut self, ours: bool, took: Duration) {
        match ours {
            true => self.ours.push(took),
            false => self.by_hand.push(took),
        }
    }

    fn print(self, what: &str, aim: f64) {
        let (ours, by_hand) = (
            median(self.ours).as_secs_f64(),
            median(self.by_hand).as_secs_f64(),
        );
        table::aimed(what, ours / by_hand, aim, "");
        table::told("by Hostler", ours, " s");
        table::told("by hand", by_hand, " s");
    }
}
