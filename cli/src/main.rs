//! `hostler`, the client: reads the command line, runs one command, reports how it ended.
//! It holds no state of its own; everything that lasts is the coordinator's.

mod arguments;
mod command;
mod connect;
mod failure;
mod output;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::failure::Failure;

fn main() -> ExitCode {
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
