//! One `[[hypervisor]]`: the host itself, or a guest, and what both kinds share.

use std::net::SocketAddr;

use hostler_common::id::HypervisorId;
use serde::Deserialize;

use super::{Argv, GuestConfig, HostConfig};

/// A hypervisor of this host.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum HypervisorConfig {
    /// The host itself.
    Host(Box<HostConfig>),
    /// A domain that the agent builds.
    Guest(Box<GuestConfig>),
}

impl HypervisorConfig {
    /// Its id.
    pub fn id(&self) -> &HypervisorId {
        match self {
            Self::Host(host) => &host.id,
            Self::Guest(guest) => &guest.id,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Host(host) => host.check(),
            Self::Guest(guest) => guest.check(),
        }
    }
}

/// How domains are run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainTypeChoice {
    /// By the CPU where it can, else by emulation.
    #[default]
    Auto,
    /// By the CPU. Fails where it cannot.
    Kvm,
    /// By emulation.
    Qemu,
}

/// What tells that a hypervisor is ready.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum ReadinessConfig {
    /// Something accepts connections there.
    Tcp {
        /// Address and port.
        address: SocketAddr,
    },
    /// A command ends with 0.
    Exec {
        /// The command.
        command: Argv,
    },
    /// A guest wrote this to its serial log.
    Serial {
        /// The text.
        text: String,
    },
}
