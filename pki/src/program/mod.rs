//! The commands of `hostler-pki`, one a file.
//!
//! They turn arguments into library calls and results into words, and decide nothing themselves. The exit code
//! is 0 when it is done or good, 1 when it failed or is bad, 2 for wrong arguments.

mod init;
mod issue;
mod man;
mod output;
mod rotate;
mod show;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples, from nothing to a fleet of one host:
  hostler-pki init --dir pki --trust-domain example.org
  hostler-pki issue coordinator c1 --dir pki --dns c1.example.org --ip 10.0.0.1
  hostler-pki issue agent node-1 --dir pki
  hostler-pki issue client admin ada --dir pki --out ~/.config/hostler
  hostler-pki show pki/node-1.crt
  hostler-pki verify --ca pki/ca.crt pki/*.crt
  hostler-pki rotate-ca status --dir pki

Certificates end: show says how many days are left, and when it is time for a new one. The CA
ends too: long before, renew it with rotate-ca, whose --help has the steps.

Keep ca.key where only you can read it: whoever has it can be anyone in the fleet.
Exit codes: 0 done or good, 1 failed or bad, 2 wrong arguments.";

/// Makes the certificates that Hostler's coordinators, agents and clients know each other by.
#[derive(Debug, Parser)]
#[command(name = "hostler-pki", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a CA: ca.crt, which everybody gets, and ca.key, which nobody gets
    Init(init::Arguments),
    /// Issue a certificate and its key
    #[command(subcommand)]
    Issue(issue::Command),
    /// Show what certificates say
    Show(show::Arguments),
    /// Put a new root in the place of the old one, in steps that cut nobody off
    #[command(subcommand, name = "rotate-ca", after_help = rotate::STEPS)]
    RotateCa(rotate::Command),
    /// Check certificates as a peer would: chain, time, use and identity
    Verify(verify::Arguments),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
}

/// Whether what was asked for is so.
enum Outcome {
    Good,
    Bad,
}

/// Runs one command.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Issue(command) => issue::run(&command),
        Command::RotateCa(command) => rotate::run(&command),
        Command::Show(arguments) => show::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    match done {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Err(error) => {
            output::error(&format!("hostler-pki: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A life in days, as an argument: 1 to 36500.
fn days(text: &str) -> Result<Duration, String> {
    const DAY: u64 = 86_400;
    match text.parse::<u64>() {
        Ok(days @ 1..=36_500) => Ok(Duration::from_secs(days * DAY)),
        _ => Err("a number of days from 1 to 36500 is expected".to_owned()),
    }
}
