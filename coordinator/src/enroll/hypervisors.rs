//! The hypervisors of a report: which of them are well-formed, and what of each is new.

use std::collections::HashSet;

use hostler_common::id::{HostName, HypervisorId};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::units::UnixMillis;

use super::{Decision, bounds};
use crate::operation::sentences;
use crate::registry::{HypervisorRecord, Kind, Observed, Registry};

/// Hypervisors that one host may have. With the bounds of [`bounds`], what all of them list stays below the
/// 4 MiB that gRPC clients take.
const PER_HOST_AT_MOST: usize = 256;

/// Entries of a report that are looked at, so that a report of millions stays cheap.
const PER_REPORT_AT_MOST: usize = 1024;

/// A hypervisor of a report, checked.
pub(super) struct Claim {
    pub(super) id: HypervisorId,
    kind: Kind,
    observed: Observed,
    detail: String,
    inventory: agent::Inventory,
    pub(super) domains: Vec<agent::Domain>,
}

/// New hypervisors beyond what one host may have are refused: nothing would take them off the list again.
pub(super) fn refuse_beyond_bound(
    registry: &Registry,
    host: &HostName,
    claims: &mut Vec<Claim>,
    refused: &mut Vec<agent::RefusedHypervisor>,
) {
    let mut room = PER_HOST_AT_MOST.saturating_sub(registry.count_of(host));
    claims.retain(|claim| {
        if registry.record(&claim.id).is_some() {
            return true;
        }
        let fits = room > 0;
        room = room.saturating_sub(1);
        if !fits {
            let reason = format!(
                "host {host} has {PER_HOST_AT_MOST} hypervisors already, the most that a host may have"
            );
            refused.push(agent::RefusedHypervisor {
                id: claim.id.to_string(),
                reason,
            });
        }
        fits
    });
}

pub(super) fn decide(
    host: &HostName,
    claim: &Claim,
    stored: Option<&HypervisorRecord>,
) -> Decision<HypervisorRecord> {
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
        None => Decision::Store(Box::new(fresh)),
        Some(record) if record.host != *host => Decision::Refuse(format!(
            "hypervisor {} is enrolled under host {}; give it another id",
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

/// What of a report is well-formed.
pub(super) fn check(
    reported: Vec<agent::HypervisorReport>,
    refused: &mut Vec<agent::RefusedHypervisor>,
) -> Vec<Claim> {
    let mut seen = HashSet::new();
    let mut claims = Vec::new();
    for claim in reported.into_iter().take(PER_REPORT_AT_MOST) {
        let mut refuse = |reason: String| {
            refused.push(agent::RefusedHypervisor {
                id: bounds::name(&claim.id),
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
        let mut inventory = bounds::inventory(claim.inventory.unwrap_or_default());
        let domains = std::mem::take(&mut inventory.running_domains);
        claims.push(Claim {
            id,
            kind,
            observed,
            detail: sentences::line(&claim.detail),
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
        let claims = check(hypervisors, &mut refused);
        assert_eq!(claims.len(), 1);
        let ids: Vec<_> = refused.iter().map(|refusal| refusal.id.as_str()).collect();
        assert_eq!(ids, ["a", "../x", "b"]);
    }
}
