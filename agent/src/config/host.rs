//! A hypervisor of kind `host`: what is brought up when it goes into service.

use std::time::Duration;

use hostler_common::id::HypervisorId;
use serde::Deserialize;

use super::{AbsolutePath, Argv, DomainTypeChoice, Mebibytes, NetworkName, PoolName, ReadinessConfig};
use hostler_common::units::duration_text;

/// The host itself as a hypervisor.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Its id.
    pub id: HypervisorId,
    /// How its domains are to run.
    #[serde(default)]
    pub domain_type: DomainTypeChoice,
    /// Networks that are active while it is in service, in the order of their start.
    #[serde(default)]
    pub networks: Vec<NetworkConfig>,
    /// Storage pools that are active while it is in service, in the order of their start.
    #[serde(default)]
    pub pools: Vec<PoolConfig>,
    /// Space that must be free before it goes into service.
    #[serde(default)]
    pub free_disk: Vec<FreeDisk>,
    /// What the site starts on top.
    pub activation: Option<ActivationConfig>,
    /// The longest that the activation may take to start or to stop.
    #[serde(default = "two_minutes", with = "duration_text")]
    pub activation_timeout: Duration,
    /// What tells that it is ready. Ready at once, when not given.
    pub readiness: Option<ReadinessConfig>,
    /// The longest that it may take to become ready.
    #[serde(default = "one_minute", with = "duration_text")]
    pub readiness_timeout: Duration,
    /// How long going out of service waits for running domains to end.
    #[serde(default, with = "duration_text")]
    pub drain_wait: Duration,
    /// What follows when domains still run then.
    #[serde(default)]
    pub on_running_domains: OnRunningDomains,
}

/// A libvirt network.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Its name.
    pub name: NetworkName,
    /// Its definition. Without one it must be defined already.
    pub xml: Option<AbsolutePath>,
}

/// A libvirt storage pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Its name.
    pub name: PoolName,
    /// Its definition. Without one it must be defined already.
    pub xml: Option<AbsolutePath>,
}

/// Space that must be free.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeDisk {
    /// Anywhere in the file system.
    pub path: AbsolutePath,
    /// How much.
    pub at_least_mb: Mebibytes,
}

/// What the site starts to put the host in service, after networks and pools.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum ActivationConfig {
    /// Commands. Each may be called again when what it does is done.
    Exec {
        /// Starts it.
        start: Argv,
        /// Stops it.
        stop: Argv,
        /// Ends with 0 while it is active and with another code while it is not.
        status: Argv,
    },
    /// A systemd unit.
    Systemd {
        /// Its name, as `isard-hypervisor.service`.
        unit: String,
    },
    /// A compose file.
    Compose {
        /// The file.
        file: AbsolutePath,
    },
}

/// What going out of service does while domains run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRunningDomains {
    /// It fails and says which.
    #[default]
    Refuse,
    /// They go on running, and so do the networks and pools that they may need.
    Leave,
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

impl HostConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        let id = &self.id;
        if self.networks.is_empty() && self.pools.is_empty() && self.activation.is_none() {
            return Err(format!(
                "the hypervisor {id} has no networks, no pools and no activation, so nothing would tell whether it is \
                 in service; give it at least one"
            ));
        }
        // Networks and pools that stay active for left domains look like a host in service; only the
        // activation still tells the two apart.
        if self.on_running_domains == OnRunningDomains::Leave && self.activation.is_none() {
            return Err(format!(
                "the hypervisor {id} has on_running_domains = \"leave\" without an activation, so nothing would tell \
                 that it is out of service while domains run; add an activation or use \"refuse\""
            ));
        }
        for (key, duration) in [
            ("activation_timeout", self.activation_timeout),
            ("readiness_timeout", self.readiness_timeout),
            ("drain_wait", self.drain_wait),
        ] {
            super::bounded(&format!("{key} of the hypervisor {id}"), duration)?;
        }
        for (index, network) in self.networks.iter().enumerate() {
            if self.networks[..index]
                .iter()
                .any(|other| other.name == network.name)
            {
                return Err(format!(
                    "the hypervisor {id} names the network {} twice",
                    network.name
                ));
            }
        }
        for (index, pool) in self.pools.iter().enumerate() {
            if self.pools[..index].iter().any(|other| other.name == pool.name) {
                return Err(format!("the hypervisor {id} names the pool {} twice", pool.name));
            }
        }
        match &self.activation {
            // It becomes an argument of systemctl, which would read a leading dash as an option.
            Some(ActivationConfig::Systemd { unit }) if unit.is_empty() || unit.starts_with('-') => {
                return Err(format!(
                    "the hypervisor {id} has an activation whose unit {unit:?} is not a unit's name"
                ));
            }
            _ => {}
        }
        if let Some(ReadinessConfig::Serial { .. }) = self.readiness {
            return Err(format!(
                "the hypervisor {id} is of kind host and has no serial line; use readiness of type tcp or exec"
            ));
        }
        Ok(())
    }
}
