//! How the coordinator is, in one answer: what somebody looks at first.

use std::collections::BTreeSet;

use hostler_common::id::HostName;
use hostler_common::rpc::hostler::site::v1 as rpc;
use hostler_common::units::UnixMillis;

use crate::operation::sentences;
use crate::registry::{Presence, Registry};

/// Names that one warning lists, and warnings of one kind.
const NAMED_AT_MOST: usize = 8;

/// What is known of the coordinator's own certificate, and what else a person should look at.
#[derive(Debug, Default, Clone)]
pub struct Own {
    /// Its name.
    pub name: String,
    /// When its certificate ends.
    pub not_after: Option<UnixMillis>,
    /// Every CA that is trusted.
    pub cas: Vec<rpc::TrustedCa>,
    /// A sentence each, the most urgent first.
    pub warnings: Vec<String>,
}

/// The whole answer. `started_at` is when the coordinator began to serve.
pub fn status(registry: &Registry, started_at: UnixMillis, own: Own) -> rpc::GetStatusResponse {
    let hypervisors = registry.map_hypervisors(|view| view.record.host.clone());
    let pools = registry.map_pools(|view| view.record.host.clone());
    let seen = registry.seen();
    let hosts: BTreeSet<&HostName> = hypervisors
        .iter()
        .chain(&pools)
        .chain(seen.iter().map(|seen| &seen.host))
        .collect();
    let connected: BTreeSet<&HostName> = seen
        .iter()
        .filter(|seen| seen.presence == Presence::Connected)
        .map(|seen| &seen.host)
        .collect();
    let away: Vec<_> = hosts
        .iter()
        .filter(|host| !connected.contains(*host))
        .map(|host| host.as_str())
        .collect();
    let attentions = registry.attentions();
    let mut warnings = own.warnings;
    let attending = attentions.iter().take(NAMED_AT_MOST);
    warnings.extend(attending.map(|(resource, id)| sentences::attention(resource, *id)));
    if let Some(more) = beyond(attentions.len()) {
        warnings.push(format!("{more} more resources need attention"));
    }
    if !away.is_empty() {
        warnings.push(not_connected(&away, hosts.len()));
    }
    rpc::GetStatusResponse {
        coordinator: own.name,
        version: hostler_common::VERSION.to_owned(),
        started_at: Some(started_at.into()),
        certificate_not_after: own.not_after.map(Into::into),
        cas: own.cas,
        agents: count(hosts.len()),
        agents_connected: count(connected.len()),
        hypervisors: count(hypervisors.len()),
        pools: count(pools.len()),
        operations_unended: count(registry.operations().len()),
        needing_attention: count(attentions.len()),
        warnings,
    }
}

fn not_connected(away: &[&str], of: usize) -> String {
    let mut names = away.iter().take(NAMED_AT_MOST).copied().collect::<Vec<_>>();
    if beyond(away.len()).is_some() {
        names.push("…");
    }
    let names = names.join(", ");
    format!(
        "{} of {of} agents are not connected ({names}): see `hostler agents list`; look at `systemctl status hostler-agent` there",
        away.len()
    )
}

fn beyond(count: usize) -> Option<usize> {
    count.checked_sub(NAMED_AT_MOST).filter(|more| *more > 0)
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_a_few_hosts_and_how_many_there_are() {
        let said = not_connected(&["a", "b"], 3);
        assert!(
            said.starts_with("2 of 3 agents are not connected (a, b): "),
            "{said}"
        );
        let many = not_connected(&["h"; 100], 200);
        assert!(
            many.starts_with("100 of 200 ") && many.contains("h, …)"),
            "{many}"
        );
        assert!(many.len() < 300, "{many}");
    }
}
