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

/// The whole answer. `started_at` is when the coordinator began to serve; `is_barred` tells whether a host is revoked and was
/// given no certificate since.
pub fn status(
    registry: &Registry,
    started_at: UnixMillis,
    own: Own,
    is_barred: impl Fn(&HostName) -> bool,
) -> rpc::GetStatusResponse {
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
    let away = hosts.iter().copied().filter(|host| !connected.contains(host));
    let (barred, away): (Vec<_>, Vec<_>) = away.partition(|host| is_barred(host));
    let unended = registry.operations();
    let attentions = registry.attentions();
    let mut warnings = own.warnings;
    let attending = attentions.iter().take(NAMED_AT_MOST);
    warnings.extend(attending.map(|(resource, id)| sentences::attention(resource, *id)));
    if let Some(more) = beyond(attentions.len()) {
        warnings.push(format!("{more} more resources need attention"));
    }
    if !barred.is_empty() {
        let theirs = unended.iter().filter(|record| barred.contains(&&record.host));
        warnings.push(revoked(&barred, theirs.count()));
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
        operations_unended: count(unended.len()),
        needing_attention: count(attentions.len()),
        warnings,
    }
}

fn not_connected(away: &[&HostName], of: usize) -> String {
    format!(
        "{} of {of} agents are not connected ({}): see `hostler agents list`; look at `systemctl status hostler-agent` there",
        away.len(),
        named(away)
    )
}

fn revoked(barred: &[&HostName], unended: usize) -> String {
    let waiting = match unended {
        0 => String::new(),
        1 => "; 1 of their operations has not ended".to_owned(),
        many => format!("; {many} of their operations have not ended"),
    };
    format!(
        "revoked and not back: {}{waiting}. Enrol a host again with a new token (`hostler tokens create`), or declare it lost (`hostler agents lost`)",
        named(barred)
    )
}

fn named(hosts: &[&HostName]) -> String {
    let mut names: Vec<_> = hosts
        .iter()
        .take(NAMED_AT_MOST)
        .map(|host| host.as_str())
        .collect();
    if beyond(hosts.len()).is_some() {
        names.push("…");
    }
    names.join(", ")
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
        let host = |name: &str| name.parse::<HostName>().unwrap();
        let (a, b) = (host("a"), host("b"));
        let said = not_connected(&[&a, &b], 3);
        assert!(
            said.starts_with("2 of 3 agents are not connected (a, b): "),
            "{said}"
        );
        let many = not_connected(&[&a; 100], 200);
        assert!(
            many.starts_with("100 of 200 ") && many.contains("a, …)"),
            "{many}"
        );
        let said = revoked(&[&a], 2);
        assert!(
            said.starts_with("revoked and not back: a; 2 of their operations have not ended. Enrol"),
            "{said}"
        );
        assert!(many.len() < 300, "{many}");
    }
}
