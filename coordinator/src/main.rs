//! The program `hostler-coordinator`: arguments, configuration, run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use hostler_common::units::UnixMillis;
use hostler_coordinator::config::Config;
use hostler_coordinator::identity::connections::Connections;
use hostler_coordinator::identity::keeper::Keeper;
use hostler_coordinator::store::Store;
use hostler_coordinator::{service_manager, wiring};
use hostler_pki::Revocations;

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
    /// Save a copy of the store as PATH, also while a coordinator serves it, and end.
    #[arg(long, value_name = "PATH", conflicts_with = "check")]
    backup_store: Option<PathBuf>,
    /// Take the store as it is for the newest, though later changes or all of it are lost, and end. Operations that
    /// have not ended in it end: nobody knows what became of them.
    #[arg(long, conflicts_with_all = ["check", "backup_store"])]
    accept_loss: bool,
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
        let (enrolment, nobody) = (config.enrolment.as_ref(), Connections::default());
        let (_keeper, own) = Keeper::start(&config.tls, enrolment, Revocations::none(), nobody)?;
        let own = own.now();
        for warning in own.warnings(UnixMillis::now()) {
            tracing::warn!("{warning}");
        }
        tracing::info!(
            identity = %own.identity(), valid_until = %own.not_after(), enrols = config.enrolment.is_some(), listen = %config.listen,
            data_dir = %config.data_dir.display(), "the configuration is good"
        );
        return Ok(());
    }
    if let Some(copy) = &arguments.backup_store {
        let revision = Store::back_up(&config.data_dir, copy)?;
        tracing::info!(copy = %copy.display(), revision = revision.0, "the store is saved");
        return Ok(());
    }
    // Two workers: the work is waiting for the disk and the network.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async {
            match arguments.accept_loss {
                true => accept_loss(&config).await,
                false => serve(&config).await,
            }
        })
}

async fn accept_loss(config: &Config) -> anyhow::Result<()> {
    let accepted = wiring::accept_loss(config).await?;
    tracing::warn!(
        revision = accepted.revision.0, ended = ?accepted.ended, tokens_closed = accepted.tokens_closed, revoked = ?accepted.revoked,
        "the store is taken for the newest; operations that had not ended in it have ended, open tokens are closed, and whoever \
         was revoked since by the audit log is revoked. See `hostler audit` for what else was done since, and `hostler clients \
         revoked`: whoever is missing there has to be revoked again"
    );
    Ok(())
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
