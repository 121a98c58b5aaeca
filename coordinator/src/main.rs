//! The program `hostler-coordinator`: arguments, configuration, run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use hostler_coordinator::config::Config;
use hostler_coordinator::{service_manager, wiring};

/// Keeps the state of a fleet of libvirt hypervisor hosts, answers gRPC clients and hands operations to agents.
///
/// Everything is served on one port over mutually authenticated TLS. SIGTERM ends open calls, within
/// `drain_timeout`; operations are durable and go on with the next start. Logs go to standard error, filtered
/// by HOSTLER_LOG (as `info,hostler_coordinator=debug`).
///
/// Example: hostler-coordinator --config /etc/hostler/coordinator.toml
#[derive(Debug, Parser)]
#[command(name = "hostler-coordinator", version = hostler_common::BUILD)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "PATH", default_value = "/etc/hostler/coordinator.toml")]
    config: PathBuf,
    /// Check the configuration and the certificates, say what was found, and end.
    #[arg(long)]
    check: bool,
    /// Write the manual page, for whoever builds a package.
    #[arg(long, hide = true, exclusive = true)]
    man_page: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.man_page {
        let page = clap_mangen::Man::new(Arguments::command()).section("8");
        return Ok(page.render(&mut std::io::stdout())?);
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            hostler_common::telemetry::start(Default::default());
            return Err(error.into());
        }
    };
    hostler_common::telemetry::start(config.log);
    hostler_common::failpoint::announce();
    if arguments.check {
        let credentials = wiring::credentials(&config)?;
        tracing::info!(
            identity = %credentials.identity(), valid_until = %credentials.not_after(), listen = %config.listen,
            data_dir = %config.data_dir.display(), "the configuration is good"
        );
        return Ok(());
    }
    // Two workers: the work is waiting for the disk and the network.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(serve(&config))
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let shutdown = hostler_common::shutdown::on_signals()?;
    let running = wiring::start(config, shutdown.clone()).await?;
    let telling = service_manager::tell(running.vital(), shutdown, config.drain_timeout);
    // Cancel-safe: telling never ends, and is given up with the process.
    let ended = tokio::select! {
        ended = running.run() => ended,
        never = telling => match never {},
    };
    tracing::info!("ended");
    ended
}
