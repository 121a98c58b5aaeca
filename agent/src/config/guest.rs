//! A hypervisor of kind `guest`: the domain that the agent builds.

use std::time::Duration;

use hostler_common::id::HypervisorId;
use serde::Deserialize;

use super::{
    AbsolutePath, DomainTypeChoice, Mebibytes, NetworkName, PciAddress, PoolName, ReadinessConfig, Threads,
    VolumeName,
};
use hostler_common::units::duration_text;

/// A domain that the agent builds from a base image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// Its id, which is its domain's name too.
    pub id: HypervisorId,
    /// How it is to run.
    #[serde(default)]
    pub domain_type: DomainTypeChoice,
    /// Its CPU threads.
    pub cpu: Threads,
    /// Its memory.
    pub memory_mb: Mebibytes,
    /// The pool of its base image and of its own volume.
    pub pool: PoolName,
    /// The volume that it starts from, which is only read.
    pub base_image: VolumeName,
    /// The networks that it is on, in order.
    #[serde(default)]
    pub networks: Vec<NetworkName>,
    /// PCI devices of the host that it gets.
    #[serde(default)]
    pub pci_devices: Vec<PciAddress>,
    /// A kernel to boot in place of the one on its disk.
    pub kernel: Option<AbsolutePath>,
    /// The kernel's initial ram disk.
    pub initrd: Option<AbsolutePath>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// Where its serial console is written. Truncated at each start.
    pub serial_log: Option<AbsolutePath>,
    /// A template that replaces the built-in one.
    pub template: Option<AbsolutePath>,
    /// What tells that it is ready. Running is ready, when not given.
    pub readiness: Option<ReadinessConfig>,
    /// The longest that it may take to become ready.
    #[serde(default = "two_minutes", with = "duration_text")]
    pub readiness_timeout: Duration,
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

impl GuestConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        let id = &self.id;
        if self.kernel.is_none() && (self.initrd.is_some() || self.cmdline.is_some()) {
            return Err(format!(
                "the hypervisor {id} has an initrd or a cmdline without a kernel"
            ));
        }
        if self
            .cmdline
            .as_ref()
            .is_some_and(|line| line.contains(char::is_control))
        {
            return Err(format!(
                "the hypervisor {id} has a cmdline with control characters"
            ));
        }
        super::bounded(
            &format!("readiness_timeout of the hypervisor {id}"),
            self.readiness_timeout,
        )?;
        if let Some(ReadinessConfig::Serial { text }) = &self.readiness {
            if self.serial_log.is_none() {
                return Err(format!(
                    "the hypervisor {id} has readiness of type serial without a serial_log to read it from"
                ));
            }
            if text.is_empty() {
                return Err(format!(
                    "the hypervisor {id} has readiness of type serial with an empty text"
                ));
            }
        }
        for (index, device) in self.pci_devices.iter().enumerate() {
            if self.pci_devices[..index].contains(device) {
                return Err(format!("the hypervisor {id} names the PCI device {device} twice"));
            }
        }
        Ok(())
    }
}
