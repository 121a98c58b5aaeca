//! `simulate --seeds 50000 [--first N]` runs seeds on every core and prints what happened; a seed that breaks an
//! invariant prints itself, and standard error says how far it is. `simulate --seed N --trace` replays one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use hostler_tests::progress::Progress;
use hostler_tests::simulation::seeds::{self, Seeds};
use hostler_tests::simulation::{Trace, run};

fn main() -> ExitCode {
    match arguments().map(|arguments| simulate(&arguments)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => failed(&error.to_string()),
        Err(words) => failed(&words),
    }
}

fn failed(words: &str) -> ExitCode {
    // Standard error may be closed; then nobody reads it.
    let _ = writeln!(std::io::stderr(), "{words}");
    ExitCode::from(2)
}

#[derive(Debug, Default)]
struct Arguments {
    seed: Option<u64>,
    seeds: u64,
    first: u64,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        seeds: 1000,
        ..Arguments::default()
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut number = || {
            let value = given.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("{name} wants a number"))
        };
        match name.as_str() {
            "--seed" => found.seed = Some(number()?),
            "--seeds" => found.seeds = number()?,
            "--first" => found.first = number()?,
            "--trace" => found.trace = true,
            _ => return Err("usage: simulate [--seeds N] [--first N] | --seed N [--trace]".to_owned()),
        }
    }
    Ok(found)
}

fn simulate(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout();
    let Some(seed) = arguments.seed else {
        let seeds = Seeds {
            first: arguments.first,
            count: arguments.seeds,
        };
        let summary = seeds::run_all(seeds, &Progress::of("seeds", seeds.count));
        write!(out, "{summary}")?;
        return Ok(code(summary.broken.is_empty()));
    };
    let trace = if arguments.trace {
        Trace::Printed
    } else {
        Trace::Hashed
    };
    let ended = run(seed, trace);
    let counts: BTreeMap<_, _> = ended.tally.iter().collect();
    writeln!(
        out,
        "seed {seed}: {:?} simulated, trace {:016x}, {counts:?}",
        ended.simulated, ended.hash
    )?;
    for broken in &ended.broken {
        writeln!(out, "BROKEN {broken}")?;
    }
    Ok(code(ended.broken.is_empty()))
}

fn code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
