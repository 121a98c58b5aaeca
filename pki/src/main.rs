//! `hostler-pki`: makes the CA, issues certificates, and looks at them.
//!
//! It holds nothing but the start; the commands are in program/, the work is in the library.

mod program;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    program::run(program::Arguments::parse())
}
