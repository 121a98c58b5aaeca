//! Measures the figures of the README; `tests/figures.sh` brings up the fleet that it measures.
//!
//! It asks real programs over real mutual TLS and prints one row a figure, with its aim beside it. It starts and
//! stops nothing but the guests of the comparison, and a missed aim is a row like any other, never an error: an
//! error is a figure that could not be measured.

mod create;
mod first_step;
mod list;
mod memory;
mod nothing;
mod operations;
mod renewals;
mod served;
mod storage;
mod table;

use std::path::Path;

use anyhow::{Context as _, bail};
use hostler_pki::{ChannelOptions, Credentials, TlsFiles};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

const USAGE: &str = "usage: figures memory (NAME PID AIM|-)... | list ADDRESS PKI_DIR | create ADDRESS PKI_DIR LIBVIRT_DIR | storage | operations DISK | first-step DISK | renewals";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // One thread: a client that spreads over the machine's cores would measure their wake-ups.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match arguments[..] {
        ["memory", ref processes @ ..] => {
            let processes: Vec<_> = processes
                .chunks(3)
                .map(memory::Process::parse)
                .collect::<Result<_, _>>()?;
            runtime.block_on(memory::measure(&processes))
        }
        ["list", address, pki] => {
            runtime.block_on(async { list::of_one_host(channel(address, pki.as_ref())?).await })?;
            // The simulated fleet is in this process, so it gets the threads that a coordinator has.
            two_threads()?.block_on(list::of_a_thousand())
        }
        ["create", address, pki, libvirt_dir] => runtime
            .block_on(async { create::measure(channel(address, pki.as_ref())?, libvirt_dir.as_ref()).await }),
        ["storage"] => {
            // What is done by hand blocks its thread; the connection lives on the others meanwhile.
            two_threads()?.block_on(storage::measure())
        }
        // The clients and the agents are in this process: both threads are theirs.
        ["operations", disk] => two_threads()?.block_on(operations::measure(disk)),
        ["first-step", disk] => first_step::measure(disk),
        // As above: the fleet is in this process.
        ["renewals"] => two_threads()?.block_on(renewals::measure()),
        _ => bail!(USAGE),
    }
}

fn two_threads() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// A channel with the operator's certificate of the demo. It connects at the first call.
fn channel(address: &str, pki: &Path) -> anyhow::Result<Channel> {
    let files = TlsFiles {
        ca: pki.join("ca.crt"),
        certificate: pki.join("operator.crt"),
        key: pki.join("operator.key"),
    };
    let credentials = Credentials::load(&files)?;
    let config = hostler_pki::client_config(&credentials)?;
    let address = address.parse().context("the address is no address")?;
    Ok(hostler_pki::channel(&address, config, ChannelOptions::default()))
}
