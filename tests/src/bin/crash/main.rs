//! `crash`: the long form of the crash tests. It runs the programs that lie beside it, kills them, and prints what
//! that came to; a broken invariant ends it with the seed that shows it again.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::fmt;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use hostler_tests::crash::Campaign;
use hostler_tests::crash::round::Has;

const USAGE: &str = "usage: crash [--kills N] [--seed N] [--worlds N] [--no-pool]";

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
    let mut arguments = std::env::args().skip(1);
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
    // Looking at a host blocks; the clients live on the other threads meanwhile.
    let threads = usize::try_from(campaign.worlds * 2).context("--worlds is too large")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let tally = runtime.block_on(campaign.run())?;
    print!("{tally}");
    println!(
        "violations: 0; seeds {} to {}, {:.0} s",
        campaign.seed,
        campaign.seed + campaign.worlds - 1,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
