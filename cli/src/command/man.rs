//! `hostler man`: the manual pages, for whoever builds a package. It needs no settings and no coordinator.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use crate::arguments::Arguments;
use crate::failure::Failure;

/// Writes the manual pages, one for each command, into a folder
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The folder, which exists
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
}

impl Man {
    /// Writes them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        // Pages of `help` would repeat every other page.
        let program = Arguments::command().disable_help_subcommand(true);
        clap_mangen::generate_to(program, &self.dir).map_err(|source| Failure::System {
            what: "write the manual pages",
            source,
        })
    }
}
