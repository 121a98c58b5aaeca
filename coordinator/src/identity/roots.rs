//! Roots that go out of use, and who still hangs on them: who has a certificate of such a root, and whose live connection was
//! opened, or renewed, by one.
//!
//! It reads no file and decides nothing: a person drops a root with `hostler-pki rotate-ca finish`. The invariants: who
//! hangs on a root that is trusted no more is cut off at once, and before that a person could see who would be.

use std::collections::BTreeSet;

use hostler_common::units::UnixMillis;
use hostler_pki::{Fingerprint, Subject};

use super::Parts;
use super::connections::{Connections, Cut};
use super::known::CertificateRecord;
use super::own::OwnState;

/// Identities that one sentence names.
const NAMED_AT_MOST: usize = 8;

/// Cuts whatever hangs on a root that `now` does not trust, and tells the log. `before` knows the roots' names.
pub(super) fn cut_dropped(connections: &Connections, before: &OwnState, now: &OwnState) {
    let hanging = connections.cut_where(Cut::RootDropped, |entry| !now.trusts(entry.root));
    let roots: BTreeSet<_> = hanging.iter().map(|(_, root)| *root).collect();
    for root in roots {
        let (name, cut) = (before.ca_name(root), of_root(&hanging, root));
        tracing::error!(
            holders = cut.len(),
            "the CA {name} is trusted no more, and whoever is connected by a certificate of it is cut off ({}); a host \
             comes back with a token: hostler tokens create --host HOST, and with it hostler-agent enrol there; a client \
             with a new certificate: hostler-pki issue client",
            named(&cut)
        );
    }
}

/// Whoever has a certificate that counts, with its root: the newest of each that is known, and those of live connections.
pub(super) fn holders(identities: &Parts) -> BTreeSet<(Subject, Fingerprint)> {
    let known = identities.known.valid(UnixMillis::now()).into_iter();
    let counts = |record: &CertificateRecord| {
        let revoked = identities
            .revocations
            .revoked(&record.identity.subject, record.not_before);
        revoked.is_none()
    };
    let known = known
        .filter(counts)
        .map(|record| (record.identity.subject, record.root));
    identities.connections.roots().into_iter().chain(known).collect()
}

/// What a person should know before the roots that sign no more are dropped: who would be cut off.
pub(super) fn left_behind(holders: &BTreeSet<(Subject, Fingerprint)>, own: &OwnState) -> Option<String> {
    let is_behind = |root| root != own.signing_root() && own.trusts(root);
    let root = holders
        .iter()
        .map(|(_, root)| *root)
        .find(|root| is_behind(*root))?;
    let cut = of_root(holders, root);
    Some(format!(
        "the CA {} signs no more, and certificates of it are still held by {} ({}): hostler-pki rotate-ca finish would cut them \
         off. Agents that are connected renew by themselves; give clients new certificates",
        own.ca_name(root),
        counted(&cut),
        named(&cut)
    ))
}

/// Agents whose newest certificate is of a root that is trusted no more, and how they come back.
pub(super) fn cut_off(holders: &BTreeSet<(Subject, Fingerprint)>, own: &OwnState) -> Option<String> {
    let is_cut = |subject: &Subject, root| matches!(subject, Subject::Agent { .. }) && !own.trusts(root);
    let cut = holders.iter().filter(|(subject, root)| is_cut(subject, *root));
    let cut: Vec<_> = cut.map(|(subject, _)| subject).collect();
    let many = counted(&cut);
    (!cut.is_empty()).then(|| {
        format!(
            "the newest certificates of {many} ({}) are of a CA that is trusted no more: enrol each again with a new token \
             (hostler tokens create), or revoke it; if the CA was dropped too early, add what was kept of it, ca.crt.DATE.ID beside \
             the CA, to the coordinator's ca.crt, and they come back",
            named(&cut)
        )
    })
}

fn of_root(holders: &BTreeSet<(Subject, Fingerprint)>, root: Fingerprint) -> Vec<&Subject> {
    let of_it = holders.iter().filter(|(_, other)| *other == root);
    of_it.map(|(subject, _)| subject).collect()
}

/// As `2 agents and 1 client`.
fn counted(subjects: &[&Subject]) -> String {
    let is_agent = |subject: &&&Subject| matches!(subject, Subject::Agent { .. });
    let agents = subjects.iter().filter(is_agent).count();
    let of = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    };
    match (agents, subjects.len() - agents) {
        (agents, 0) => of(agents, "agent"),
        (0, clients) => of(clients, "client"),
        (agents, clients) => format!("{} and {}", of(agents, "agent"), of(clients, "client")),
    }
}

fn named(subjects: &[&Subject]) -> String {
    let mut names: Vec<_> = subjects
        .iter()
        .take(NAMED_AT_MOST)
        .map(ToString::to_string)
        .collect();
    if subjects.len() > NAMED_AT_MOST {
        names.push("…".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use hostler_pki::Identity;

    use super::*;

    #[test]
    fn who_is_left_behind_is_counted_by_kind_and_a_few_are_named() {
        let subject = |path: String| {
            let identity: Identity = format!("spiffe://fleet.test/{path}").parse().unwrap();
            identity.subject
        };
        let all: Vec<_> = (0..20)
            .map(|at| match at {
                0 => subject("client/admin/ada".to_owned()),
                _ => subject(format!("agent/h{at}")),
            })
            .collect();
        let all: Vec<_> = all.iter().collect();
        assert_eq!(counted(&all), "19 agents and 1 client");
        assert_eq!(counted(&all[..1]), "1 client");
        assert_eq!(counted(&all[1..2]), "1 agent");
        assert_eq!(named(&all[..3]), "client/admin/ada, agent/h1, agent/h2");
        assert!(named(&all).ends_with("agent/h7, …"), "{}", named(&all));
    }
}
