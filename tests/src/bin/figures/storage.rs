//! Backups, expands and shrinks through the whole path, against the same programs called by hand.
//!
//! It makes its own fleet of one host on a pool of loop devices. Either way works on the same data in the same run,
//! in turns; the page cache is dropped before each.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::operations::v1::OperationState;
use hostler_common::units::UnixMillis;
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
/// Of restic's own throughput.
const BACKUP_AIM: f64 = 0.97;
const SHRINK_AIM: f64 = 1.05;
const EXPAND_AIM: f64 = 1.2;
/// MB above the idle agent.
const MEMORY_AIM: f64 = 10.0;
/// In MiB. On one of two all that is on both has room, in pieces of 1 GiB, and the reserve.
const DISK: u64 = 4096;
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

/// A backup, and a second one of the same files: restic's part against plain restic on such a snapshot, and the whole
/// against the same work by hand (snapshot, backup, check, retention, snapshot removed).
async fn backups(pool: &LoopPool, fleet: &mut Fleet) -> anyhow::Result<()> {
    let (mut first, mut second) = (Both::default(), Both::default());
    for round in 0..ROUNDS {
        for ours in [round % 2 == 0, round % 2 != 0] {
            std::fs::remove_dir_all(pool.repository())?;
            pool.init_repository();
            for turns in [&mut first, &mut second] {
                cold()?;
                let begun = Instant::now();
                let restic = match ours {
                    true => backup(fleet).await?,
                    false => backup_by_hand(pool),
                };
                turns.whole.took(ours, begun.elapsed());
                turns.restic.took(ours, restic);
            }
        }
    }
    first.print("CreateBackup's throughput / plain restic's");
    second.print("the same again, nothing changed");
    Ok(())
}

/// How long the step with restic's backup took.
async fn backup(fleet: &mut Fleet) -> anyhow::Result<Duration> {
    let stream = fleet.create_backup(rpc::CreateBackupRequest::default()).await?;
    let id = completed(stream.into_inner(), |said| {
        (said.state(), said.msg, said.operation_id)
    })
    .await?;
    let got = fleet.get_operation(rpc::GetOperationRequest { id }).await?;
    let lease = got.into_inner().operation.and_then(|operation| operation.lease);
    let logs = lease.context("the operation has no logs")?.logs;
    let at = |step: &str| {
        let log = logs.iter().find(|log| log.message.starts_with(step));
        let ts = log
            .and_then(|log| log.ts)
            .with_context(|| format!("no line of {step}"))?;
        anyhow::Ok(UnixMillis::from(ts))
    };
    Ok(at("step 3/")?.until(at("step 4/")?))
}

fn backup_by_hand(pool: &LoopPool) -> Duration {
    let mount = pool.mount_point();
    let snapshot = mount.join("by-hand");
    let (mount, at) = (mount.display().to_string(), snapshot.display().to_string());
    must("btrfs", &["subvolume", "snapshot", "-r", &mount, &at]);
    let begun = Instant::now();
    pool.restic(&["backup", "--json", "--tag", "by-hand", &at]);
    let took = begun.elapsed();
    pool.restic(&["check", "--read-data"]);
    pool.restic(&["forget", "--tag", "by-hand", "--keep-last", "3", "--prune"]);
    must("btrfs", &["subvolume", "delete", "--commit-after", &at]);
    took
}

/// One of two devices leaves, a part of the data on it; then it comes back and the data is spread again.
async fn shrinks(pool: &LoopPool, fleet: &mut Fleet) -> anyhow::Result<()> {
    pool.fill("more", &FILES);
    let mount = pool.mount_point().display().to_string();
    let spread = || must("btrfs", &["balance", "start", "--full-balance", &mount]);
    spread();
    let mut turns = Turns::default();
    for round in 0..ROUNDS {
        for ours in [round % 2 == 0, round % 2 != 0] {
            let members = pool.members();
            cold()?;
            let begun = Instant::now();
            match ours {
                false => drop(must("btrfs", &["device", "remove", &emptier(&mount)?, &mount])),
                true => {
                    let request = rpc::ShrinkStorageRequest {
                        max_bytes: DISK << 20,
                        ..Default::default()
                    };
                    let stream = fleet.shrink_storage(request).await?;
                    completed(stream.into_inner(), |said| {
                        (said.state(), said.msg, said.operation_id)
                    })
                    .await?;
                }
            }
            turns.took(ours, begun.elapsed());
            let left = pool.members();
            let gone = members.iter().find(|member| !left.contains(member));
            let gone = gone.context("no device left the pool")?;
            must("btrfs", &["device", "add", gone, &mount]);
            spread();
        }
    }
    turns.print("ShrinkStorage of a device / btrfs device remove", SHRINK_AIM);
    Ok(())
}

/// The device with the least on it, which Hostler takes too.
fn emptier(mount: &str) -> anyhow::Result<String> {
    let said = must("btrfs", &["filesystem", "show", "--raw", mount]);
    let devices = said.lines().filter_map(|line| {
        let (used, path) = line.split(" used ").nth(1)?.split_once(" path ")?;
        Some((used.trim().parse::<u64>().ok()?, path.trim().to_owned()))
    });
    let least = devices.min().context("no devices are listed")?;
    Ok(least.1)
}

/// A spare device is added; then it is removed by hand.
async fn expands(pool: &LoopPool, fleet: &mut Fleet) -> anyhow::Result<()> {
    let mount = pool.mount_point().display().to_string();
    let spare = must("readlink", &[&pool.device("disk-2").display().to_string()]);
    let spare = spare.trim();
    let mut turns = Turns::default();
    let mut untrimmed = Vec::new();
    for round in 0..3 * ROUNDS {
        let begun = Instant::now();
        must("btrfs", &["device", "add", "--nodiscard", spare, &mount]);
        untrimmed.push(begun.elapsed());
        must("btrfs", &["device", "remove", spare, &mount]);
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
                    completed(stream.into_inner(), |said| {
                        (said.state(), said.msg, said.operation_id)
                    })
                    .await?;
                }
            }
            turns.took(ours, begun.elapsed());
            must("btrfs", &["device", "remove", spare, &mount]);
        }
    }
    turns.print("ExpandStorage by a device / btrfs device add", EXPAND_AIM);
    table::told(
        "by hand without TRIM, as Hostler does it",
        median(untrimmed).as_secs_f64(),
        " s",
    );
    Ok(())
}

/// Nothing of what is measured is in the page cache.
fn cold() -> anyhow::Result<()> {
    must("sync", &[]);
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")
}

/// Reads a stream to its end, which must be COMPLETED; the operation's id.
async fn completed<R>(
    mut stream: Streaming<R>,
    read: impl Fn(R) -> (OperationState, String, String),
) -> anyhow::Result<String> {
    let mut last = None;
    while let Some(said) = stream
        .message()
        .await
        .map_err(|status: Status| anyhow::anyhow!("{status}"))?
    {
        last = Some(read(said));
    }
    let (state, words, id) = last.context("the stream said nothing")?;
    ensure!(
        state == OperationState::Completed,
        "it ended as {state:?}: {words}"
    );
    Ok(id)
}

/// Times of a backup: restic's part, and all of it.
#[derive(Default)]
struct Both {
    restic: Turns,
    whole: Turns,
}

impl Both {
    fn print(self, what: &str) {
        let (ours, by_hand) = self.restic.medians();
        table::aimed_at_least(what, by_hand / ours, BACKUP_AIM);
        table::told("by Hostler", ours, " s");
        table::told("by hand", by_hand, " s");
        let (ours, by_hand) = self.whole.medians();
        table::told("with snapshot, check and retention, by Hostler", ours, " s");
        table::told("with snapshot, check and retention, by hand", by_hand, " s");
    }
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

    fn medians(self) -> (f64, f64) {
        (
            median(self.ours).as_secs_f64(),
            median(self.by_hand).as_secs_f64(),
        )
    }

    fn print(self, what: &str, aim: f64) {
        let (ours, by_hand) = self.medians();
        table::aimed(what, ours / by_hand, aim, "");
        table::told("by Hostler", ours, " s");
        table::told("by hand", by_hand, " s");
    }
}
