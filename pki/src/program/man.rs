//! `hostler-pki man`: the manual pages, for whoever builds a package.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::Outcome;

/// Where they go.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder, which exists.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
}

/// Writes a page for each command.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    // Pages of `help` would repeat every other page.
    let program = super::Arguments::command().disable_help_subcommand(true);
    clap_mangen::generate_to(program, &arguments.dir)
        .with_context(|| format!("cannot write manual pages to {}", arguments.dir.display()))?;
    Ok(Outcome::Good)
}
