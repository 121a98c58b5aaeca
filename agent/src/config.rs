//! The agent's configuration file: what it declares, read once at the start.
//!
//! A value that exists is valid: each type refuses what makes no sense by itself, and [`AgentConfig::load`]
//! refuses what makes no sense together. Nothing here looks at the host; that is what steps are for.

mod backup;
mod guest;
mod host;
mod hypervisor;
mod storage;
mod values;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use hostler_common::config::{ConfigError, load};
use hostler_common::telemetry::LogFormat;
use hostler_common::units::duration_text;
use hostler_pki::address::CoordinatorAddress;
use hostler_pki::files::TlsFiles;
use serde::Deserialize;

pub use backup::{BackupConfig, KeepConfig, RepositoryAddress};
pub use guest::GuestConfig;
pub use host::{ActivationConfig, FreeDisk, HostConfig, NetworkConfig, OnRunningDomains, PoolConfig};
pub use hypervisor::{DomainTypeChoice, HypervisorConfig, ReadinessConfig};
pub use storage::{BackendKind, DevicePattern, StorageConfig};
pub use values::{
    AbsolutePath, Argv, DomainName, InvalidValue, Mebibytes, NetworkName, PciAddress, PciModelId, PoolName,
    Threads, VolumeName,
};

/// Longer than anyone waits, and short enough for every sum of durations and clocks.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Where the coordinator listens.
    pub coordinator: CoordinatorAddress,
    /// Where the agent keeps its journal. Made at the start when it is absent.
    pub state_dir: AbsolutePath,
    /// Where locks of what runs on this machine lie. Made when it is absent; it may go with a boot, not before.
    #[serde(default = "run_dir")]
    pub run_dir: AbsolutePath,
    /// How log lines look.
    #[serde(default)]
    pub log: LogFormat,
    /// The agent's certificate, its key, and the CA.
    pub tls: TlsFiles,
    /// How libvirt is reached.
    #[serde(default)]
    pub libvirt: LibvirtConfig,
    /// Names of GPUs that PCI ids cannot tell apart.
    #[serde(default, rename = "gpu")]
    pub gpus: Vec<GpuOverride>,
    /// Paths that must be mounted and writable.
    #[serde(default)]
    pub shared_storage: Vec<SharedStorageConfig>,
    /// The pool that this host owns.
    pub storage: Option<StorageConfig>,
    /// The hypervisors of this host.
    #[serde(default, rename = "hypervisor")]
    pub hypervisors: Vec<HypervisorConfig>,
}

/// How libvirt is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LibvirtConfig {
    /// The connection, as libvirt writes it.
    pub uri: String,
    /// The longest that a libvirt call may take.
    #[serde(with = "duration_text")]
    pub call_timeout: Duration,
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".into(),
            call_timeout: Duration::from_secs(30),
        }
    }
}

/// The name of one GPU, or of every GPU with one PCI id.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuOverride {
    /// The GPU at this address.
    pub pci: Option<PciAddress>,
    /// Every GPU with this vendor and device id.
    pub device: Option<PciModelId>,
    /// The short model, as `A10`.
    pub model: String,
    /// The vendor.
    #[serde(default = "nvidia")]
    pub brand: String,
}

fn nvidia() -> String {
    "NVIDIA".into()
}

/// A path that hosts share.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedStorageConfig {
    /// The mount point.
    pub path: AbsolutePath,
    /// What must be mounted there, as in `/proc/self/mountinfo`: `nas:/isard`, `/dev/sdb1`.
    pub source: String,
    /// With which file system. Any, when it is not given.
    pub fstype: Option<String>,
    /// A libvirt pool that must be active.
    pub pool: Option<PoolName>,
}

impl AgentConfig {
    /// Reads `path`.
    ///
    /// # Errors
    /// When it cannot be read, is not this TOML, or holds values that make no sense; the sentence names them.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, Self::check)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        for (key, file) in [
            ("ca", &self.tls.ca),
            ("certificate", &self.tls.certificate),
            ("key", &self.tls.key),
        ] {
            if !file.is_absolute() {
                return Err(format!(
                    "tls.{key} {:?} is relative; give the path from the root",
                    file.display()
                ));
            }
        }
        if self.libvirt.uri.is_empty() {
            return Err("libvirt.uri is empty; leave it out for qemu:///system".into());
        }
        if self.libvirt.call_timeout.is_zero() {
            return Err("libvirt.call_timeout is zero; no call would ever answer".into());
        }
        bounded("libvirt.call_timeout", self.libvirt.call_timeout)?;
        self.gpus.iter().try_for_each(GpuOverride::check)?;
        let mut paths = BTreeSet::new();
        for storage in &self.shared_storage {
            if storage.source.is_empty() {
                return Err(format!("shared_storage {} has an empty source", storage.path));
            }
            if !paths.insert(&storage.path) {
                return Err(format!("two shared_storage have the path {}", storage.path));
            }
        }
        if let Some(storage) = &self.storage {
            storage.check()?;
        }
        self.check_hypervisors()
    }

    fn check_hypervisors(&self) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        let mut host = None;
        for hypervisor in &self.hypervisors {
            if !ids.insert(hypervisor.id()) {
                return Err(format!("two hypervisors have the id {}", hypervisor.id()));
            }
            if let HypervisorConfig::Host(config) = hypervisor
                && let Some(other) = host.replace(&config.id)
            {
                return Err(format!(
                    "the hypervisors {other} and {} are both of kind host; a host has one",
                    config.id
                ));
            }
            hypervisor.check()?;
        }
        Ok(())
    }
}

fn run_dir() -> AbsolutePath {
    AbsolutePath::fixed("/run/hostler-agent")
}

/// Refuses a duration that is a slip of the pen.
fn bounded(what: &str, duration: Duration) -> Result<(), String> {
    match duration <= LONGEST {
        true => Ok(()),
        false => Err(format!("{what} is longer than 30 days")),
    }
}

impl GpuOverride {
    fn check(&self) -> Result<(), String> {
        if self.model.is_empty() {
            return Err("a gpu has an empty model".into());
        }
        match (&self.pci, &self.device) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(format!(
                "the gpu {} needs either pci (an address) or device (vendor:device), and not both",
                self.model
            )),
        }
    }
}

#[cfg(test)]
mod tests;
