//! `hostler completions`: a script for a shell. It needs no settings and no coordinator.

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output;

/// Prints a completion script for a shell
#[derive(Debug, Args)]
#[command(
    long_about = "Prints a completion script for a shell.",
    after_long_help = "\
Examples:
  hostler completions bash > /etc/bash_completion.d/hostler
  hostler completions zsh > \"${fpath[1]}/_hostler\"
  hostler completions fish > ~/.config/fish/completions/hostler.fish"
)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut shown(), "hostler", &mut script);
        output::print(String::from_utf8_lossy(&script).trim_end())
    }
}

/// The command line without what is hidden: clap_complete would offer that, too.
fn shown() -> Command {
    let all = Arguments::command();
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("hostler")
        .args(all.get_arguments().cloned())
        .subcommands(commands.cloned().collect::<Vec<_>>())
        .version(env!("CARGO_PKG_VERSION"))
}
