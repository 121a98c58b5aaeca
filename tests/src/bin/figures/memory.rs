//! The memory of programs that run, as the kernel counts it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::time::{Instant, interval, timeout_at};

use crate::table;

/// An agent looks at its host every ten seconds; what stays the same over three looks and a minute is idle.
const STEADY: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);
/// Beyond it a process that still grows is measured as it is, and said to.
const PATIENCE: Duration = Duration::from_secs(240);

/// A process whose memory is a figure.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: u32,
    /// MB of 10^6 bytes; none when it is measured for information.
    aim: Option<f64>,
}

impl Process {
    /// From a name, a pid, and an aim in MB or `-`.
    pub(crate) fn parse(arguments: &[&str]) -> anyhow::Result<Self> {
        let [name, pid, aim] = arguments else {
            bail!("a process is a name, a pid and an aim or -, not {arguments:?}")
        };
        Ok(Self {
            name: (*name).to_owned(),
            pid: pid.parse()?,
            aim: match *aim {
                "-" => None,
                aim => Some(aim.parse()?),
            },
        })
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
        Ok(Self {
            resident: field(pid, "VmRSS")?,
            anonymous: field(pid, "RssAnon")?,
        })
    }
}

/// One figure of `/proc/PID/status`, in kB of 1024 bytes.
fn field(pid: u32, name: &str) -> anyhow::Result<u64> {
    field_of(pid, "status", name)
}

/// What it costs the machine: pages that others have too are counted by halves, thirds, and so on (proc_pid_smaps(5)).
fn share(pid: u32) -> anyhow::Result<u64> {
    field_of(pid, "smaps_rollup", "Pss")
}

fn field_of(pid: u32, file: &str, name: &str) -> anyhow::Result<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| {
        rest.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
    .ok_or_else(|| anyhow!("{} holds no {name}", path.display()))
}

/// The memory of one process while something else is measured.
pub(crate) struct Peak {
    pid: u32,
    idle: u64,
}

impl Peak {
    /// Begins: what the process has now is its idle memory.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn watch(pid: u32) -> anyhow::Result<Self> {
        let idle = Memory::read(pid)?.resident;
        // Resets VmHWM to what is resident now (proc_pid_clear_refs(5)).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the highest memory")?;
        Ok(Self { pid, idle })
    }

    /// Idle and highest since then, in MB.
    ///
    /// # Errors
    /// When the process has ended.
    pub(crate) fn end(self) -> anyhow::Result<(f64, f64)> {
        let highest = field(self.pid, "VmHWM")?;
        Ok((megabytes(self.idle), megabytes(highest)))
    }
}

/// Prints the memory of each process once that of all has settled.
///
/// # Errors
/// When one of them does not run.
pub(crate) async fn measure(processes: &[Process]) -> anyhow::Result<()> {
    for (process, memory) in processes.iter().zip(settle(processes).await?) {
        let (what, resident) = (format!("{}, VmRSS", process.name), megabytes(memory.resident));
        match process.aim {
            Some(aim) => table::aimed(&what, resident, aim, " MB"),
            None => table::told(&what, resident, " MB"),
        }
        table::told("of it RssAnon", megabytes(memory.anonymous), " MB");
        table::told("its share, Pss", megabytes(share(process.pid)?), " MB");
    }
    Ok(())
}

/// Reads until a minute has passed and nothing has changed for [`STEADY`].
async fn settle(processes: &[Process]) -> anyhow::Result<Vec<Memory>> {
    let read = || {
        let all = processes.iter().map(|process| Memory::read(process.pid));
        all.collect::<anyhow::Result<Vec<_>>>()
    };
    let begun = Instant::now();
    let mut last = read()?;
    let mut since = begun;
    let mut tick = interval(Duration::from_secs(1));
    while timeout_at(begun + PATIENCE, tick.tick()).await.is_ok() {
        let now = read()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= STEADY && begun.elapsed() >= IDLE {
            return Ok(last);
        }
    }
    table::told("(still changing after)", PATIENCE.as_secs_f64(), " s");
    Ok(last)
}

fn megabytes(kilobytes: u64) -> f64 {
    // Far below 2^52, so that nothing is lost.
    Duration::from_micros(kilobytes * 1024).as_secs_f64()
}
