//! CreateHypervisor of a guest through the whole path, against the same libvirt calls made by `virsh`.
//!
//! Both make an overlay on one base image, define one domain, start it and wait for one line on its serial
//! console, in turns. The domain of the comparison is the agent's own, under another name.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_tests::{fleet, wait};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::table::{self, median};

const AIM: f64 = 1.1;
const ROUNDS: usize = 9;
/// As deploy/lib/fleet.sh makes them.
const GUEST: &str = "demo-guest-1";
const POOL: &str = "hostler-demo";
const BASE: &str = "base.qcow2";
const READY: &str = "hostler guest ready";
/// The guest of the comparison.
const TWIN: &str = "figures-guest";

/// # Errors
/// When either way of building a guest fails.
pub(crate) async fn measure(channel: Channel, libvirt_dir: &Path) -> anyhow::Result<()> {
    let mut hostler = Hostler(OperationsServiceClient::new(channel));
    // It warms up both, and libvirt, and shows what the agent defines.
    hostler.create().await?;
    let twin = Twin::of(&virsh(&["dumpxml", "--inactive", GUEST])?, libvirt_dir)?;
    hostler.destroy().await?;
    twin.create().await?;
    twin.destroy()?;

    let (mut by_hostler, mut by_virsh) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Each goes first as often as second.
        for hostlers_turn in [round % 2 == 0, round % 2 != 0] {
            if hostlers_turn {
                by_hostler.push(hostler.create().await?);
                hostler.destroy().await?;
            } else {
                by_virsh.push(twin.create().await?);
                twin.destroy()?;
            }
        }
    }
    let (by_hostler, by_virsh) = (median(by_hostler), median(by_virsh));
    table::aimed(
        "CreateHypervisor of a guest / the same by virsh",
        by_hostler.as_secs_f64() / by_virsh.as_secs_f64(),
        AIM,
        "",
    );
    table::told(
        "CreateHypervisor, until the guest is ready",
        by_hostler.as_secs_f64(),
        " s",
    );
    table::told("virsh, until the guest is ready", by_virsh.as_secs_f64(), " s");
    Ok(())
}

/// A guest of the fleet, by its public API.
struct Hostler(OperationsServiceClient<Channel>);

impl Hostler {
    /// From the call to the end of its stream.
    async fn create(&mut self) -> anyhow::Result<Duration> {
        let id = GUEST.to_owned();
        let begun = Instant::now();
        let stream = self
            .0
            .create_hypervisor(rpc::CreateHypervisorRequest { id })
            .await?;
        let said = fleet::collect(stream.into_inner()).await?;
        let took = begun.elapsed();
        completed(said)?;
        Ok(took)
    }

    async fn destroy(&mut self) -> anyhow::Result<()> {
        let id = GUEST.to_owned();
        let stream = self
            .0
            .destroy_hypervisor(rpc::DestroyHypervisorRequest { id })
            .await?;
        completed(fleet::collect(stream.into_inner()).await?)
    }
}

fn completed(said: Vec<fleet::Said>) -> anyhow::Result<()> {
    let (state, words) = said.last().context("the stream said nothing")?;
    ensure!(
        *state == rpc::OperationState::Completed,
        "it ended as {state:?}: {words}"
    );
    // "nothing to do" would be fast, and not what is measured.
    ensure!(said.len() > 2, "nothing was done: {words}");
    Ok(())
}

/// The same guest without Hostler.
struct Twin {
    volume: String,
    console: String,
    xml: String,
}

impl Twin {
    /// From the XML that libvirt holds of the agent's guest.
    fn of(xml: &str, libvirt_dir: &Path) -> anyhow::Result<Self> {
        let in_dir = |name: String| libvirt_dir.join(name).display().to_string();
        let twin = Self {
            volume: format!("hostler-{TWIN}.qcow2"),
            console: in_dir(format!("console/{TWIN}.log")),
            xml: in_dir(format!("{TWIN}.xml")),
        };
        // Two domains cannot have one UUID; libvirt chooses another.
        let lines = xml
            .lines()
            .filter(|line| !line.trim_start().starts_with("<uuid>"));
        let xml = lines.collect::<Vec<_>>().join("\n").replace(GUEST, TWIN);
        for part in [&twin.volume, &twin.console] {
            ensure!(
                xml.contains(part.as_str()),
                "the agent's domain is not as expected: no {part} in it"
            );
        }
        std::fs::write(&twin.xml, xml).with_context(|| format!("cannot write {}", twin.xml))?;
        Ok(twin)
    }

    async fn create(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        virsh(&[
            "vol-create-as",
            POOL,
            &self.volume,
            "64M",
            "--allocation",
            "0",
            "--format",
            "qcow2",
            "--backing-vol",
            BASE,
            "--backing-vol-format",
            "qcow2",
        ])?;
        virsh(&["define", &self.xml])?;
        virsh(&["start", TWIN])?;
        wait::until("the guest says that it is ready", || async {
            let said = std::fs::read(&self.console).unwrap_or_default();
            String::from_utf8_lossy(&said).contains(READY).then_some(())
        })
        .await;
        Ok(begun.elapsed())
    }

    fn destroy(&self) -> anyhow::Result<()> {
        virsh(&["destroy", TWIN])?;
        virsh(&["undefine", TWIN])?;
        virsh(&["vol-delete", &self.volume, "--pool", POOL])?;
        // The next guest is not to be taken for ready by what this one said.
        std::fs::remove_file(&self.console).with_context(|| format!("cannot remove {}", self.console))
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the comparison is with the program virsh"
)]
fn virsh(arguments: &[&str]) -> anyhow::Result<String> {
    let ran = Command::new("virsh")
        .args(["--quiet", "--connect", "qemu:///system"])
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run virsh")?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(
        ran.status.success(),
        "virsh {} failed: {}",
        arguments.join(" "),
        said.trim()
    );
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}
