//! The memory of programs that run, as the kernel counts it.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::time::{Instant, interval, timeout_at};

use crate::table;

/// An agent looks at its host every ten seconds; what stays the same over three looks and a minute is idle.
const STEADY: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);
/// Beyond it a process that still grows is measured as it is, and said to.
const PATIENCE: Duration = Duration::from_secs(240);

/// MB, of 10^6 bytes.
const AIM: f64 = 15.0;

/// What the processes have been through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// They have started and done nothing for a minute. This is the figure.
    Idle,
    /// They have worked. For information.
    Worked,
}

impl FromStr for When {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "idle" => Ok(Self::Idle),
            "worked" => Ok(Self::Worked),
            _ => bail!("{text:?} is neither idle nor worked"),
        }
    }
}

/// One reading of `/proc/PID/status` (proc_pid_status(5)), in kB of 1024 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    /// Everything that is resident, the program's own text included.
    resident: u64,
    /// What is the process's alone: heap, stacks, written data.
    anonymous: u64,
}

impl Memory {
    fn read(pid: u32) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        let status =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| {
                rest.trim_start_matches(':')
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .ok_or_else(|| anyhow!("{} holds no {name}", path.display()))
        };
        Ok(Self {
            resident: field("VmRSS")?,
            anonymous: field("RssAnon")?,
        })
    }
}

/// Prints the memory of each process once that of all has settled.
///
/// # Errors
/// When one of them does not run.
pub(crate) async fn measure(when: When, processes: [(&str, u32); 2]) -> anyhow::Result<()> {
    let mut settled = settle(processes.map(|(_, pid)| pid), when).await?.into_iter();
    for ((name, _), memory) in processes.into_iter().zip(settled.by_ref()) {
        let idle = match name {
            "agent" => "idle agent",
            other => other,
        };
        match when {
            When::Idle => {
                table::aimed(
                    &format!("Memory of the {idle}, VmRSS"),
                    megabytes(memory.resident),
                    AIM,
                    " MB",
                );
                table::told("of it RssAnon", megabytes(memory.anonymous), " MB");
            }
            When::Worked => {
                table::told(
                    &format!("The {name} after all of this, VmRSS"),
                    megabytes(memory.resident),
                    " MB",
                );
                table::told("of it RssAnon", megabytes(memory.anonymous), " MB");
            }
        }
    }
    Ok(())
}

/// Reads until nothing has changed for [`STEADY`], and for a whole minute where they shall be idle.
async fn settle(pids: [u32; 2], when: When) -> anyhow::Result<[Memory; 2]> {
    let read = || anyhow::Ok([Memory::read(pids[0])?, Memory::read(pids[1])?]);
    let begun = Instant::now();
    let at_least = match when {
        When::Idle => IDLE,
        When::Worked => STEADY,
    };
    let mut last = read()?;
    let mut since = begun;
    let mut tick = interval(Duration::from_secs(1));
    while timeout_at(begun + PATIENCE, tick.tick()).await.is_ok() {
        let now = read()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= STEADY && begun.elapsed() >= at_least {
            return Ok(last);
        }
    }
    table::told("(still changing after this long)", PATIENCE.as_secs_f64(), " s");
    Ok(last)
}

fn megabytes(kilobytes: u64) -> f64 {
    // Far below 2^52, so that nothing is lost.
    Duration::from_micros(kilobytes * 1024).as_secs_f64()
}
