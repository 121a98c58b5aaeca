//! What a host has: threads, memory, GPUs, shared storage. Everything here only looks; the one exception is the
//! probe file that tells whether a shared path is writable.
//!
//! Every list is in a fixed order, so that two inventories differ only when the host does.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzed;
mod gpu;
mod gpu_name;
mod pci_ids;
pub mod storage;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

pub use gpu::discover as gpus;

/// CPU threads and memory of the host.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// CPU threads.
    pub cpu_threads: u32,
    /// All memory, in MB of 2^20 bytes.
    pub memory_mb: u64,
    /// Memory that programs can still get, in MB of 2^20 bytes.
    pub available_mb: u64,
}

impl Machine {
    /// Of this host, now. All zero, and logged, on a host that does not tell.
    pub fn read() -> Self {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = match System::new_with_specifics(what) {
            Ok(system) => system,
            Err(error) => {
                tracing::error!(%error, "the system does not tell its CPU threads and memory");
                return Self::default();
            }
        };
        Self {
            cpu_threads: u32::try_from(system.cpus().len()).unwrap_or(u32::MAX),
            memory_mb: system.total_memory() >> 20,
            available_mb: system.available_memory() >> 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_proc_says() {
        let machine = Machine::read();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let threads = cpuinfo
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        assert_eq!(machine.cpu_threads as usize, threads);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap();
        assert_eq!(machine.memory_mb, total.parse::<u64>().unwrap() / 1024);
        assert!(machine.available_mb <= machine.memory_mb);
    }
}
