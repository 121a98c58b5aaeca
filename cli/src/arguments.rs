//! The command line: what is global, and which command. Each command's own arguments lie beside its code.
//! It never reads a file or the environment; `settings` does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use hostler_common::error::excerpt;

use crate::command::Command;
use crate::output::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the operation failed, or what was asked for does not exist
  2    usage: arguments, settings, or a request that the coordinator calls malformed
  3    the coordinator cannot be reached, or does not allow it (connection, TLS, role, timeout)
  130  interrupted; operations go on without the client

Settings, each from the first that has it: flag, environment, configuration file
  --coordinator  HOSTLER_COORDINATOR  coordinator = \"coordinator.example.org:1312\"
  --ca           HOSTLER_CA           ca = \"ca.crt\"
  --cert         HOSTLER_CERT         cert = \"operator.crt\"
  --key          HOSTLER_KEY          key = \"operator.key\"
  --output       HOSTLER_OUTPUT       output = \"table\"
  --timeout      HOSTLER_TIMEOUT      timeout = \"30s\"
The file is --config, HOSTLER_CONFIG, or ~/.config/hostler/config.toml ($XDG_CONFIG_HOME is honoured).
Paths in it are relative to its folder.

Examples:
  hostler hypervisors list
  hostler hypervisors create hv1 --reason \"back from repair\"
  hostler storage expand 10GiB --dry-run
  hostler backups create
  hostler operations list --unended
  hostler lock hv1 --for 30m --reason \"disk swap\"
  hostler status
  hostler tokens create --host hv7
  hostler audit --since 1h
  hostler proxy --listen 127.0.0.1:1312";

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "hostler",
    version,
    about = "Runs a fleet of libvirt hypervisors and their storage",
    long_about = "Talks to Hostler's coordinator over mutual TLS: lists hypervisors, puts them in and out of \
                  service, grows and shrinks storage pools, backs them up and restores them, shows what happened to \
                  each.",
    after_long_help = EXIT_CODES,
    max_term_width = 110
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The settings that flags give. Unset ones come from elsewhere.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Flags {
    /// The coordinator; port 1312 when none is named
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) coordinator: Option<String>,
    /// The certificate of the authority that signed the coordinator's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// For people or for programs
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "output")]
    pub(crate) json: bool,
    /// The longest to wait, as 30s or 10m [default: 30s for an answer, no limit for operations and watches]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Reads `30s`, `10m`, `1h 30m`; zero is refused, since nothing can be done in it.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than zero".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{}; write it as 30s or 10m", excerpt(&error.to_string()))),
    }
}
