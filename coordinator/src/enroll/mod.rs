//! Takes an agent's report into the fleet. A hypervisor is enrolled the first time that its agent reports
//! it, and belongs to that host from then on; another host that claims its id is refused.
//!
//! The store is written only when something that is stored has changed.

use std::collections::HashSet;

use hostler_common::id::{HostName, HypervisorId};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::units::UnixMillis;

use crate::operation::engine::{EngineError, parse, write};
use crate::registry::{HypervisorRecord, Kind, Observed};
use crate::store::{Committed, Compare, Revision, Store, Transaction};

/// Hypervisors that one host may report. Far above what one machine can run.
const PER_HOST_AT_MOST: usize = 1024;

/// What became of a report.
#[derive(Debug, Default)]
pub struct Accepted {
    /// What the host may speak for, with its running domains. All of it is stored.
    pub reported: Vec<(HypervisorId, Vec<agent::Domain>)>,
    /// What was refused, with the reason.
    pub refused: Vec<agent::RefusedHypervisor>,
}

/// A hypervisor of a report, checked.
struct Claim {
    id: HypervisorId,
    kind: Kind,
    observed: Observed,
    detail: String,
    inventory: agent::Inventory,
    domains: Vec<agent::Domain>,
}

/// Stores what changed of `report`, which came from `host`'s own session.
///
/// # Errors
/// When the store fails; then nothing was taken.
pub async fn accept(
    store: &Store,
    host: &HostName,
    report: agent::HostReport,
) -> Result<Accepted, EngineError> {
    let mut refused = Vec::new();
    let claims = check(report, &mut refused);
    loop {
        let keys = claims
            .iter()
            .map(|claim| HypervisorRecord::key(&claim.id))
            .collect();
        let mut transaction = Transaction::default();
        let mut accepted = Accepted {
            refused: refused.clone(),
            ..Accepted::default()
        };
        for (claim, entry) in claims.iter().zip(store.get_many(keys).await?) {
            let stored: Option<(HypervisorRecord, Revision)> = match &entry {
                Some(entry) => Some((parse(entry)?, entry.modified)),
                None => None,
            };
            match decide(host, claim, stored.as_ref().map(|(record, _)| record)) {
                Decision::Refuse(reason) => {
                    accepted.refused.push(agent::RefusedHypervisor {
                        id: claim.id.to_string(),
                        reason,
                    });
                    continue;
                }
                Decision::Keep => {}
                Decision::Store(record) => {
                    let key = HypervisorRecord::key(&record.id);
                    let modified = stored.map_or(Revision(0), |(_, modified)| modified);
                    transaction.compares.push(Compare {
                        key: key.clone(),
                        modified,
                    });
                    transaction.writes.push(write(key, &record));
                }
            }
            accepted.reported.push((claim.id.clone(), claim.domains.clone()));
        }
        if transaction.writes.is_empty() || matches!(store.commit(transaction).await?, Committed::At(_)) {
            return Ok(accepted);
        }
    }
}

enum Decision {
    Refuse(String),
    Keep,
    Store(Box<HypervisorRecord>),
}

fn decide(host: &HostName, claim: &Claim, stored: Option<&HypervisorRecord>) -> Decision {
    let now = UnixMillis::now();
    let fresh = HypervisorRecord {
        id: claim.id.clone(),
        host: host.clone(),
        kind: claim.kind,
        observed: claim.observed,
        detail: claim.detail.clone(),
        inventory: claim.inventory.clone(),
        enrolled_at: stored.map_or(now, |record| record.enrolled_at),
        changed_at: stored.map_or(now, |record| record.changed_at),
    };
    match stored {
        None => {
            tracing::info!(hypervisor = %claim.id, %host, "enrolled");
            Decision::Store(Box::new(fresh))
        }
        Some(record) if record.host != *host => Decision::Refuse(format!(
            "hypervisor {} is enrolled under host {}; give it another id, or remove it there first",
            claim.id, record.host
        )),
        Some(record) if record.kind != claim.kind => Decision::Refuse(format!(
            "hypervisor {} is enrolled as kind {:?}; a kind never changes: give it another id",
            claim.id, record.kind
        )),
        Some(record) => match observe_anew(record, fresh, now) {
            Some(changed) => Decision::Store(Box::new(changed)),
            None => Decision::Keep,
        },
    }
}

/// The record with what is new of it; None when nothing is. While libvirt does not answer, what only it can
/// tell keeps its last value: a GPU does not leave the machine because a daemon stopped.
fn observe_anew(
    stored: &HypervisorRecord,
    mut fresh: HypervisorRecord,
    now: UnixMillis,
) -> Option<HypervisorRecord> {
    let libvirt_down = fresh
        .inventory
        .libvirt
        .as_ref()
        .is_some_and(|libvirt| !libvirt.problem.is_empty());
    if libvirt_down && fresh.inventory.gpus.is_empty() {
        fresh.inventory.gpus.clone_from(&stored.inventory.gpus);
    }
    (fresh != *stored).then_some(HypervisorRecord {
        changed_at: now,
        ..fresh
    })
}

fn check(report: agent::HostReport, refused: &mut Vec<agent::RefusedHypervisor>) -> Vec<Claim> {
    let mut seen = HashSet::new();
    let mut claims = Vec::new();
    for claim in report.hypervisors {
        let mut refuse = |reason: String| {
            refused.push(agent::RefusedHypervisor {
                id: claim.id.chars().take(128).collect(),
                reason,
            });
        };
        let kind = match claim.kind() {
            agent::HypervisorKind::Host => Kind::Host,
            agent::HypervisorKind::Guest => Kind::Guest,
            agent::HypervisorKind::Unspecified => {
                refuse("its kind is not set or not known; use an agent of this version".to_owned());
                continue;
            }
        };
        let observed = match claim.observed() {
            agent::Observed::InService => Observed::InService,
            agent::Observed::OutOfService => Observed::OutOfService,
            agent::Observed::Unknown | agent::Observed::Unspecified => Observed::Unknown,
        };
        let id: HypervisorId = match claim.id.parse() {
            Ok(id) => id,
            Err(error) => {
                refuse(format!("{error}"));
                continue;
            }
        };
        if !seen.insert(id.clone()) {
            refuse(format!("the report names {id} twice"));
            continue;
        }
        if claims.len() >= PER_HOST_AT_MOST {
            refuse(format!("a host may have at most {PER_HOST_AT_MOST} hypervisors"));
            continue;
        }
        let mut inventory = claim.inventory.unwrap_or_default();
        let domains = std::mem::take(&mut inventory.running_domains);
        claims.push(Claim {
            id,
            kind,
            observed,
            detail: claim.detail,
            inventory,
            domains,
        });
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(host: &str) -> HypervisorRecord {
        HypervisorRecord {
            id: "hv1".parse().unwrap(),
            host: host.parse().unwrap(),
            kind: Kind::Host,
            observed: Observed::OutOfService,
            detail: String::new(),
            inventory: agent::Inventory {
                cpu_threads: 8,
                gpus: vec![agent::Gpu {
                    brand: "NVIDIA".into(),
                    model: "T4".into(),
                    ..Default::default()
                }],
                ..Default::default()
            },
            enrolled_at: UnixMillis(1),
            changed_at: UnixMillis(1),
        }
    }

    #[test]
    fn gpus_stay_while_libvirt_is_down() {
        let mut fresh = record("a");
        fresh.inventory.gpus.clear();
        let libvirt = agent::Libvirt {
            problem: "no answer".into(),
            ..Default::default()
        };
        fresh.inventory.libvirt = Some(libvirt);
        let changed = observe_anew(&record("a"), fresh.clone(), UnixMillis(2)).unwrap();
        assert_eq!(changed.inventory.gpus, record("a").inventory.gpus);
        fresh.inventory.libvirt = Some(agent::Libvirt::default());
        let changed = observe_anew(&record("a"), fresh, UnixMillis(2)).unwrap();
        assert!(changed.inventory.gpus.is_empty(), "libvirt is up and lists none");
    }

    #[test]
    fn the_same_report_is_not_stored_again() {
        assert_eq!(observe_anew(&record("a"), record("a"), UnixMillis(2)), None);
    }

    #[test]
    fn a_report_may_not_name_one_id_twice_or_an_ill_formed_one() {
        let claim = |id: &str, kind: agent::HypervisorKind| agent::HypervisorReport {
            id: id.into(),
            kind: kind.into(),
            ..Default::default()
        };
        let host = agent::HypervisorKind::Host;
        let unset = agent::HypervisorKind::Unspecified;
        let hypervisors = vec![
            claim("a", host),
            claim("a", host),
            claim("../x", host),
            claim("b", unset),
        ];
        let mut refused = Vec::new();
        let claims = check(
            agent::HostReport {
                hypervisors,
                ..Default::default()
            },
            &mut refused,
        );
        assert_eq!(claims.len(), 1);
        let ids: Vec<_> = refused.iter().map(|refusal| refusal.id.as_str()).collect();
        assert_eq!(ids, ["a", "../x", "b"]);
    }
}
