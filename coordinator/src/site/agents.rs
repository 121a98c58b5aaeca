//! Every host that has an agent, or had one: by what it enrolled, and by the sessions since the coordinator started.

use std::collections::BTreeMap;

use hostler_common::id::HostName;
use hostler_common::rpc::hostler::site::v1 as rpc;
use hostler_common::units::UnixMillis;

use crate::registry::{Presence, Registry};
use crate::session::registry::Sessions;

/// What is known of a host's certificates.
#[derive(Debug, Default, Clone)]
pub struct CertificateOf {
    /// When that of its session ends; without one, the newest that is known.
    pub not_after: Option<UnixMillis>,
    /// The name of the CA that signed it.
    pub ca: Option<String>,
    /// When those before were revoked.
    pub revoked_at: Option<UnixMillis>,
}

/// Every host, by name.
pub fn list(
    registry: &Registry,
    sessions: &Sessions,
    certificate: impl Fn(&HostName) -> CertificateOf,
) -> Vec<rpc::Agent> {
    let mut agents: BTreeMap<HostName, rpc::Agent> = BTreeMap::new();
    for seen in registry.seen() {
        let agent = rpc::Agent {
            connected: seen.presence == Presence::Connected,
            version: seen.agent_version,
            last_heard: Some(seen.last_heard.into()),
            ..Default::default()
        };
        agents.insert(seen.host, agent);
    }
    for (host, id) in registry.map_hypervisors(|view| (view.record.host.clone(), view.record.id.to_string()))
    {
        agents.entry(host).or_default().hypervisor_ids.push(id);
    }
    for (host, name) in registry.map_pools(|view| (view.record.host.clone(), view.record.name.to_string())) {
        agents.entry(host).or_default().pools.push(name);
    }
    let known = agents.into_iter().map(|(host, agent)| {
        let CertificateOf {
            not_after,
            ca,
            revoked_at,
        } = certificate(&host);
        rpc::Agent {
            address: sessions.of(&host).map(|session| session.from).unwrap_or_default(),
            certificate_not_after: not_after.map(Into::into),
            certificate_ca: ca.unwrap_or_default(),
            revoked_at: revoked_at.map(Into::into),
            host: host.to_string(),
            ..agent
        }
    });
    known.collect()
}
