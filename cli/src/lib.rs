//! `hostler`, the client: reads the command line, runs one command, reports how it ended.
//! It holds no state of its own; everything that lasts is the coordinator's.
//!
//! A library only so that fuzzing reaches what reads the command line and the settings; nothing else uses it.

mod arguments;
mod command;
mod connect;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod output;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::failure::Failure;

/// Runs the program, from the command line to its exit code.
pub fn run() -> ExitCode {
    // Variables whose names are not UTF-8 are none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(source) => {
            return Failure::System {
                what: "start threads",
                source,
            }
            .report();
        }
    };
    let ended = runtime.block_on(command::run(Arguments::parse(), &environment));
    // A blocking read that never ends must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
