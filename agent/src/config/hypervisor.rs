//! One `[[hypervisor]]`: the host itself, or a guest, and what both kinds share.

use std::net::SocketAddr;

use hostler_common::id::HypervisorId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Argv, GuestConfig, HostConfig};

/// A hypervisor of this host.
#[derive(Debug, Clone)]
pub enum HypervisorConfig {
    /// The host itself.
    Host(Box<HostConfig>),
    /// A domain that the agent builds.
    Guest(Box<GuestConfig>),
}

/// In two steps rather than by serde's tag, which forgets the key that an error is about.
impl<'de> Deserialize<'de> for HypervisorConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(from)?;
        let id = table
            .get("id")
            .map_or_else(|| "without id".to_owned(), |id| format!("id = {id}"));
        let kind = table.remove("kind");
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default();
        let config = match kind {
            "host" => HostConfig::deserialize(table).map(|host| Self::Host(Box::new(host))),
            "guest" => GuestConfig::deserialize(table).map(|guest| Self::Guest(Box::new(guest))),
            other => {
                let problem = format!("hypervisor {id}: kind is {other:?}; it must be \"host\" or \"guest\"");
                return Err(D::Error::custom(problem));
            }
        };
        config.map_err(|error| D::Error::custom(format!("hypervisor {id}: {}", error.to_string().trim_end())))
    }
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
