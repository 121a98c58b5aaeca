//! The program `hostler`. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hostler::run()
}
