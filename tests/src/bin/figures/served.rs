//! A coordinator as a process of its own, with the settings that it has when nobody sets any, and what one run of it
//! costs. For figures that need no host.
//!
//! It lies in the directory for temporary files, which must be on the disk that is measured.

use std::time::Duration;

use anyhow::Context as _;
use hostler_pki::ChannelOptions;
use hostler_pki::address::CoordinatorAddress;
use hostler_tests::programs::{Process, Site, tls};
use hostler_tests::wait;
use tonic::transport::Channel;

/// Of `/proc/PID/stat`, fixed by the kernel's interface (proc_pid_stat(5), `sysconf(_SC_CLK_TCK)`).
const TICKS_A_SECOND: f64 = 100.0;

/// The coordinator and its files.
pub(crate) struct Served {
    pub(crate) site: Site,
    process: Process,
}

impl Served {
    /// Starts it; it serves when this returns.
    pub(crate) async fn start() -> Self {
        let site = Site::make();
        let text = format!(
            "listen = '127.0.0.1:{}'\ndata_dir = '{}'\n{}",
            site.port,
            site.path("data").display(),
            tls(&site.ca.files("coordinator/c1"))
        );
        site.write("coordinator.toml", &text);
        let process = site.coordinator().await;
        Self { site, process }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> anyhow::Result<CoordinatorAddress> {
        let address = format!("127.0.0.1:{}", self.site.port);
        address.parse().context("the address is no address")
    }

    /// A channel of its own with a certificate for `path`, as `client/operator/o`. It connects at its first call.
    pub(crate) fn channel(&self, path: &str) -> anyhow::Result<Channel> {
        let config = self.site.ca.client_config(path);
        Ok(hostler_pki::channel(
            &self.address()?,
            config,
            ChannelOptions::default(),
        ))
    }

    /// Waits until `hypervisors` are listed and can be created.
    pub(crate) async fn until_listed(&self, hypervisors: usize) -> anyhow::Result<()> {
        use hostler_common::rpc::operations::v1 as rpc;
        use rpc::operations_service_client::OperationsServiceClient;
        let client = OperationsServiceClient::new(self.channel("client/viewer/figures")?);
        wait::until("every hypervisor is listed as it is", || {
            let mut client = client.clone();
            async move {
                let list = client.list_hypervisors(rpc::ListHypervisorsRequest {}).await;
                let list = list.ok()?.into_inner().hypervisors;
                let free = |listed: &rpc::ListHypervisorsResponseHypervisor| {
                    listed.state() == rpc::HypervisorState::AvailableToCreate
                };
                (list.len() == hypervisors && list.iter().all(free)).then_some(())
            }
        })
        .await;
        Ok(())
    }

    /// What its process has used of the CPUs so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The name of the program is in parentheses and may hold anything; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("no program's name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks: Vec<u32> = ticks.collect::<Result<_, _>>()?;
        let ticks: u32 = ticks.into_iter().sum();
        Ok(Duration::from_secs_f64(f64::from(ticks) / TICKS_A_SECOND))
    }
}
