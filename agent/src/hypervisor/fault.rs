//! Why a step of a hypervisor's operation did not succeed.

use std::path::PathBuf;
use std::time::Duration;

use hostler_common::error::Retry;
use thiserror::Error;
use uuid::Uuid;

use crate::command::CommandFault;
use crate::config::{AbsolutePath, DomainName, PoolName, VolumeName};
use crate::executor::step::StepError;
use crate::inventory::storage::StorageFault;
use crate::libvirt::LibvirtFault;

/// What went wrong, and with what.
#[derive(Debug, Error)]
pub enum StepFault {
    /// libvirt did not do it.
    #[error("cannot {what}")]
    Libvirt {
        /// What was asked of it.
        what: String,
        /// Why not.
        #[source]
        source: LibvirtFault,
    },
    /// A program did not do it.
    #[error("cannot {what}")]
    Command {
        /// What was asked of it.
        what: String,
        /// Why not.
        #[source]
        source: CommandFault,
    },
    /// A shared path cannot be used.
    #[error("shared storage is not usable")]
    Storage(#[source] StorageFault),
    /// A file that is needed cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: AbsolutePath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The lock of an activation cannot be used.
    #[error("cannot use the lock {}", lock.display())]
    Turn {
        /// The lock.
        lock: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder of a serial log is missing.
    #[error("the folder of the serial log {log} cannot be read; make it")]
    LogFolder {
        /// The log.
        log: AbsolutePath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Domains are to run by kvm, and cannot.
    #[error("domains cannot run by kvm here: {reason}; use domain_type = \"auto\" to run them by emulation")]
    NoKvm {
        /// Why.
        reason: String,
    },
    /// Too little space.
    #[error("{path} has {free_mb} MB free and needs {needed_mb}")]
    DiskFull {
        /// Where.
        path: AbsolutePath,
        /// What there is.
        free_mb: u64,
        /// What there should be.
        needed_mb: u64,
    },
    /// Too little memory.
    #[error("the host has {available_mb} MB of memory available and {domain} needs {needed_mb}")]
    MemoryShort {
        /// For which domain.
        domain: DomainName,
        /// What there is.
        available_mb: u64,
        /// What there should be.
        needed_mb: u64,
    },
    /// The clock is wrong.
    #[error("the clock says {now}, which is before this version was made; set it")]
    ClockWrong {
        /// What it says.
        now: String,
    },
    /// It is not defined, and there is nothing to define it from.
    #[error("{object} is not defined; define it in libvirt or give its xml in the configuration")]
    NotDefined {
        /// As "network default".
        object: String,
    },
    /// The pool cannot be used.
    #[error("the pool {pool} is not active; put the host in service first")]
    PoolNotActive {
        /// The pool.
        pool: PoolName,
    },
    /// The base image is missing.
    #[error("the pool {pool} holds no volume {volume}; put the base image there")]
    NoBaseImage {
        /// The pool.
        pool: PoolName,
        /// The volume.
        volume: VolumeName,
    },
    /// A volume of our name has another base image.
    #[error("the pool {pool} holds a volume {volume} that is no overlay of {expected}; delete or rename it")]
    ForeignVolume {
        /// The pool.
        pool: PoolName,
        /// The volume.
        volume: VolumeName,
        /// The base image.
        expected: String,
    },
    /// The domain's name is taken by one that Hostler did not make.
    #[error("a domain {name} exists that Hostler did not make (uuid {uuid}); rename it or undefine it")]
    ForeignDomain {
        /// The name.
        name: DomainName,
        /// Its UUID.
        uuid: Uuid,
    },
    /// The domain exists and neither runs nor is off.
    #[error("domain {name} is paused, suspended or going down; resume it, or wait until it is off")]
    Halted {
        /// The name.
        name: DomainName,
    },
    /// The template cannot be filled in.
    #[error("the template of domain {name} cannot be filled in")]
    Template {
        /// The domain.
        name: DomainName,
        /// Why.
        #[source]
        source: Box<minijinja::Error>,
    },
    /// The template defines a domain that Hostler would not find again.
    #[error(
        "the template of domain {name} defines another domain: {problem}; fill in {{{{ name }}}} and {{{{ uuid }}}}"
    )]
    OtherDomain {
        /// The domain.
        name: DomainName,
        /// What is not as it should be.
        problem: String,
    },
    /// Domains run on a host that is to go out of service.
    #[error("{}; stop or move them first", running(count, names))]
    DomainsRun {
        /// How many.
        count: usize,
        /// The first of them.
        names: Vec<String>,
    },
    /// It ended before it was ready.
    #[error("domain {name} stopped before it was ready{}", last_words(last_line))]
    StoppedEarly {
        /// The domain.
        name: DomainName,
        /// The last line of its serial log.
        last_line: String,
    },
    /// It did not become ready.
    #[error("{what} within {waited:?}{}", last_words(last_line))]
    NotReady {
        /// What was waited for, as "127.0.0.1:22 did not accept connections".
        what: String,
        /// For how long.
        waited: Duration,
        /// The last line of its serial log, or of what the probe said.
        last_line: String,
    },
}

/// How many domains run and which, the first five by name.
fn running(count: &usize, names: &[String]) -> String {
    let listed = names.join(", ");
    let more = if *count > names.len() { ", …" } else { "" };
    let (noun, verb) = if *count == 1 {
        ("domain", "runs")
    } else {
        ("domains", "run")
    };
    format!("{count} {noun} still {verb} ({listed}{more})")
}

fn last_words(last_line: &str) -> String {
    if last_line.is_empty() {
        String::new()
    } else {
        format!("; its last line was {last_line:?}")
    }
}

impl StepFault {
    /// For `map_err`: libvirt could not `what`.
    pub(super) fn libvirt(what: impl Into<String>) -> impl FnOnce(LibvirtFault) -> Self {
        let what = what.into();
        |source| Self::Libvirt { what, source }
    }

    /// For `map_err`: a program could not `what`.
    pub(super) fn command(what: impl Into<String>) -> impl FnOnce(CommandFault) -> Self {
        let what = what.into();
        |source| Self::Command { what, source }
    }

    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Libvirt { source, .. } => source.retry(),
            Self::Command { source, .. } => source.retry(),
            Self::Storage(source) => source.retry(),
            Self::File { .. }
            | Self::Turn { .. }
            | Self::LogFolder { .. }
            | Self::NoKvm { .. }
            | Self::DiskFull { .. }
            | Self::MemoryShort { .. }
            | Self::ClockWrong { .. }
            | Self::NotDefined { .. }
            | Self::PoolNotActive { .. }
            | Self::NoBaseImage { .. }
            | Self::ForeignVolume { .. }
            | Self::ForeignDomain { .. }
            | Self::Halted { .. }
            | Self::Template { .. }
            | Self::OtherDomain { .. }
            | Self::DomainsRun { .. }
            | Self::StoppedEarly { .. }
            | Self::NotReady { .. } => Retry::Never,
        }
    }
}

impl From<StepFault> for StepError {
    fn from(fault: StepFault) -> Self {
        Self::new(&fault, fault.retry())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_domains_are_counted_and_the_first_five_named() {
        let fault = |count: usize| StepFault::DomainsRun {
            count,
            names: (1..=count.min(5)).map(|n| format!("d{n}")).collect(),
        };
        assert_eq!(
            fault(1).to_string(),
            "1 domain still runs (d1); stop or move them first"
        );
        assert_eq!(
            fault(7).to_string(),
            "7 domains still run (d1, d2, d3, d4, d5, …); stop or move them first"
        );
    }
}
