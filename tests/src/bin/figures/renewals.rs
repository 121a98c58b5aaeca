//! How evenly a fleet renews its certificates: a thousand agents that were enrolled at one time, which is the worst that a
//! rollout does, and lives of a minute.
//!
//! The agents are the product's keepers of identity and sessions over mutual TLS, without hosts behind them; the coordinator is in
//! this process too. A renewal counts at the moment when its certificate is in its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use hostler_pki::ca::{Authority, IssueOptions};
use hostler_tests::fleet::Fleet;
use hostler_tests::kept::KeptHost;
use tokio::time::{MissedTickBehavior, interval};

use crate::table;

const AIM: f64 = 3.0;
const HOSTS: usize = 1000;
const LIFE: Duration = Duration::from_secs(60);
/// A thirtieth of a life, in seconds: in less of it chance would be most of what is seen.
const WINDOW: u64 = 2;
/// Much shorter than from one renewal of a host to its next.
const LOOK: Duration = Duration::from_millis(500);

/// # Errors
/// When an agent does not renew.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let mut fleet = Fleet::start_with(|config| {
        if let Some(enrolment) = &mut config.enrolment {
            enrolment.agent_life = LIFE;
        }
        config.sessions.heartbeat = Duration::from_secs(5);
    })
    .await;
    let ca = fleet.tls_files().ca;
    let authority = Authority::open(ca.parent().context("the CA lies nowhere")?)?;
    let address = fleet.address.to_string().parse()?;
    let mut hosts: Vec<_> = (0..HOSTS)
        .map(|number| KeptHost::new(&format!("h{number}")))
        .collect();
    let begun = SystemTime::now();
    for host in &mut hosts {
        give(&authority, host, &ca)?;
        host.begin(&address);
        tokio::task::yield_now().await;
    }
    let given = begun.elapsed()?;
    until_connected(&fleet).await?;
    let connected = begun.elapsed()?;
    // The first is due after 39 % of a life. One that waited for its connection would tell of that.
    ensure!(
        connected < LIFE.mul_f64(0.39),
        "the agents took {connected:?} to connect, so that renewals waited for that; is the machine busy?"
    );
    let renewals = renewals(&hosts, begun).await?;
    let dropped = hosts.iter().filter(|host| host.dials() > 1).count();
    ensure!(dropped == 0, "{dropped} sessions were dropped");
    for host in &mut hosts {
        host.stop().await;
    }
    fleet.stop().await;

    let mut windows: BTreeMap<u64, usize> = BTreeMap::new();
    for at in &renewals {
        *windows.entry(at.as_secs() / WINDOW).or_default() += 1;
    }
    let most = windows.values().copied().max().context("nobody renewed")?;
    let peak = most as f64 / WINDOW as f64;
    let mean = HOSTS as f64 / LIFE.as_secs_f64();
    table::aimed("renewals a second: peak / mean of one life", peak / mean, AIM, "");
    table::told("renewals a second, peak of two", peak, "");
    table::told("renewals a second, mean of one life", mean, "");
    table::told("enrolled within", given.as_secs_f64(), " s");
    Ok(())
}

/// A certificate for `host` from now.
fn give(authority: &Authority, host: &KeptHost, ca: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(host.dir().join("identity"))?;
    std::fs::copy(ca, &host.files.ca)?;
    let identity = format!("spiffe://fleet.test/agent/{}", host.host).parse()?;
    let options = IssueOptions {
        lifetime: LIFE,
        ..IssueOptions::default()
    };
    let issued = authority.issue(&identity, &options)?;
    Ok(issued.write_one_file(&host.files.certificate)?)
}

async fn until_connected(fleet: &Fleet) -> anyhow::Result<()> {
    let mut tick = interval(LOOK);
    tokio::time::timeout(LIFE, async {
        loop {
            tick.tick().await;
            let available = hostler_common::rpc::operations::v1::HypervisorState::AvailableToCreate;
            let list = fleet.list().await;
            if list.iter().filter(|listed| listed.state() == available).count() == HOSTS {
                return;
            }
        }
    })
    .await
    .context("not every agent connected")
}

/// When each host's certificate was replaced, from `since` on, for one life.
async fn renewals(hosts: &[KeptHost], since: SystemTime) -> anyhow::Result<Vec<Duration>> {
    let mut last: BTreeMap<PathBuf, SystemTime> = BTreeMap::new();
    let mut renewals = Vec::new();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while since.elapsed()? < LIFE {
        tick.tick().await;
        for host in hosts {
            let path = &host.files.certificate;
            let written = std::fs::metadata(path)?.modified()?;
            if last
                .insert(path.clone(), written)
                .is_some_and(|before| before != written)
            {
                renewals.push(written.duration_since(since)?);
            }
        }
    }
    ensure!(
        renewals.len() >= hosts.len(),
        "only {} certificates were renewed",
        renewals.len()
    );
    Ok(renewals)
}
