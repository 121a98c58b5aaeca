//! `crash`: the long form of the crash tests. It runs the programs that lie beside it, kills them, and prints what
//! that came to, and meanwhile on standard error how far it is; a broken invariant ends it with the seed that shows it again. `crash points` kills them at every named
//! point instead, which they have when they were built with the feature `failpoints`.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::fmt;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use hostler_tests::crash::Campaign;
use hostler_tests::crash::round::Has;
use hostler_tests::crash::walk::{Length, Walked, walk};
use hostler_tests::progress::Progress;
use tokio::runtime::Runtime;

const USAGE: &str = "usage: crash [--kills N] [--seed N] [--worlds N] [--no-pool]
       crash points [--short] [--no-pool | --pool] [--scene NAME]";

/// A failure as its story with the seed; where in the harness it was told helps nobody.
struct Told(anyhow::Error);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

fn main() -> Result<(), Told> {
    run().map_err(Told)
}

fn run() -> anyhow::Result<()> {
    let mut campaign = Campaign {
        seed: 1,
        worlds: 4,
        kills: 2000,
        has: Has::HypervisorAndPool,
    };
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("points").is_some() {
        return points(arguments);
    }
    while let Some(argument) = arguments.next() {
        let mut number = || -> anyhow::Result<u64> {
            let value = arguments.next().context(USAGE)?;
            value
                .parse()
                .with_context(|| format!("{value:?} is no number; {USAGE}"))
        };
        match argument.as_str() {
            "--kills" => campaign.kills = number()?,
            "--seed" => campaign.seed = number()?,
            "--worlds" => campaign.worlds = number()?,
            "--no-pool" => campaign.has = Has::Hypervisor,
            _ => bail!(USAGE),
        }
    }
    ensure!(campaign.worlds > 0, "--worlds is 0: nothing would be killed");
    let begun = Instant::now();
    let progress = Progress::of("kills", campaign.kills);
    let tally = runtime(campaign.worlds)?.block_on(campaign.run(&progress))?;
    drop(progress);
    print!("{tally}");
    println!(
        "violations: 0; seeds {} to {}, {:.0} s",
        campaign.seed,
        campaign.seed + campaign.worlds - 1,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Looking at a host blocks; the clients live on the other threads meanwhile.
fn runtime(worlds: u64) -> anyhow::Result<Runtime> {
    let threads = usize::try_from(worlds * 2).context("--worlds is too large")?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(threads).enable_all().build()?)
}

fn points(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let (mut length, mut has) = (Length::Long, vec![Has::Hypervisor, Has::HypervisorAndPool]);
    let mut only = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--short" => length = Length::Short,
            "--no-pool" => has = vec![Has::Hypervisor],
            "--pool" => has = vec![Has::HypervisorAndPool],
            "--scene" => only = Some(arguments.next().context(USAGE)?),
            _ => bail!(USAGE),
        }
    }
    let begun = Instant::now();
    let runtime = runtime(8)?;
    let progress = Progress::of("kills", 0);
    let mut walked = Walked::default();
    for has in has {
        walked.add(runtime.block_on(walk(has, length, only.as_deref(), &progress))?);
    }
    drop(progress);
    print!("{}", walked.tally);
    println!(
        "violations: 0; points at which nothing was killed: {:?}; {:.0} s",
        walked.missing(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
