//! The agent's program: arguments, configuration, run.

mod enrol;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser, Subcommand};
use hostler_agent::config::AgentConfig;
use hostler_agent::identity::words;
use hostler_agent::wiring::{Agent, BLOCKING_THREADS, Parts};
use hostler_agent::{check, service_manager};
use hostler_common::units::UnixMillis;
use hostler_common::{failpoint, shutdown, telemetry};
use tokio_util::sync::CancellationToken;

use crate::enrol::EnrolArguments;

/// Reports what this host has to the coordinator, and does libvirt and storage work on it.
///
/// Operations run as steps that are journaled in the state directory. SIGTERM lets a running step go on for ten
/// seconds; what is not done then goes on with the next start. Logs go to standard error, filtered by HOSTLER_LOG (as
/// `info,hostler_agent=debug`).
///
/// A new host: hostler-agent enrol --token-file - --coordinator coordinator.example.org
///
/// Example: hostler-agent --config /etc/hostler/agent.toml --check
#[derive(Parser)]
#[command(name = "hostler-agent", version = hostler_common::BUILD)]
struct Arguments {
    /// The agent's configuration file. `enrol` makes one that does not exist.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/etc/hostler/agent.toml"
    )]
    config: PathBuf,
    /// Check the configuration, the credentials and the programs, print what is found, and end.
    #[arg(long)]
    check: bool,
    /// Write the manual pages into this folder, for whoever builds a package.
    #[arg(long, value_name = "FOLDER", hide = true, exclusive = true)]
    man_pages: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Enrol(EnrolArguments),
}

fn main() -> ExitCode {
    match whole(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not have started yet. Nobody is left to tell of a standard error that is closed.
            let _ = writeln!(std::io::stderr(), "hostler-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One for the program and one for each of its commands, in the section of what root runs.
fn write_man_pages(folder: &Path) -> std::io::Result<()> {
    // A page of `help` would repeat every other page.
    let mut program = Arguments::command().disable_help_subcommand(true);
    // Gives commands their names as a person types them.
    program.build();
    for command in std::iter::once(&program).chain(program.get_subcommands()) {
        clap_mangen::Man::new(command.clone())
            .section("8")
            .generate_to(folder)?;
    }
    Ok(())
}

fn whole(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.man_pages {
        return write_man_pages(folder)
            .with_context(|| format!("cannot write manual pages to {}", folder.display()));
    }
    if let Some(Command::Enrol(asked)) = &arguments.command {
        if arguments.check {
            bail!("--check looks at what is there, and enrol changes it; run one after the other");
        }
        return asked.enrol(&arguments.config);
    }
    let config = AgentConfig::load(&arguments.config)?;
    telemetry::start(config.log);
    // Two providers in one process would make rustls panic at the first connection.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        bail!("another TLS provider is installed already; this is a bug");
    }
    let parts = Parts::new(config)?;
    if arguments.check {
        return match check::write(&parts, &mut std::io::stdout()) {
            // Whoever reads has read enough, as in `--check | head -1`.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error).context("cannot write what was found"),
            Ok(()) if parts.own.is_expired(UnixMillis::now()) => {
                bail!(words::expired(&parts.own.identity, parts.own.not_after))
            }
            Ok(()) => Ok(()),
        };
    }
    failpoint::announce();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let stop = shutdown::on_signals().context("cannot listen for signals")?;
        let agent = parts.start(&stop)?;
        run(agent, stop).await
    });
    // A call that hangs in libvirt must not keep the process: its journal says where to go on.
    runtime.shutdown_background();
    ended
}

/// Until every task has ended as told, or one ends untold.
async fn run(mut agent: Agent, stop: CancellationToken) -> anyhow::Result<()> {
    let mut looks = agent.reporter.latest();
    let mut ready = false;
    let mut stopping = false;
    let mut watchdog = tokio::time::interval(service_manager::watchdog_interval());
    loop {
        // Cancel-safe, each: a join set, a watch, a token and a clock lose nothing when they are not the first.
        tokio::select! {
            ended = agent.tasks.join_next() => match ended {
                None => return Ok(()),
                Some(Err(error)) => return Err(error).context("a task of the agent died; this is a bug"),
                Some(Ok(())) if !stop.is_cancelled() => bail!("a task of the agent ended untold; this is a bug"),
                Some(Ok(())) => {}
            },
            looked = looks.wait_for(|look| look.number > 0), if !ready => {
                ready = true;
                if looked.is_ok() {
                    service_manager::ready();
                }
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                service_manager::stopping();
            }
            _ = watchdog.tick() => service_manager::alive(agent.pulse.age()),
        }
    }
}
