//! The storage pools of a report: which of them are well-formed, and what of each is new. What changes while a pool is
//! used is new for those who look, never for the store.

use std::collections::HashSet;

use hostler_common::id::{HostName, PoolName};
use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::units::UnixMillis;

use super::{Decision, bounds};
use crate::registry::{PoolRecord, Registry, same_but_figures};

/// Pools that one host may own.
const PER_HOST_AT_MOST: usize = 8;

/// Entries of a report that are looked at.
const PER_REPORT_AT_MOST: usize = 64;

/// A pool of a report, checked.
pub(super) struct Claim {
    pub(super) name: PoolName,
    pub(super) report: agent::PoolReport,
}

/// What of a report is well-formed, with the figures that a pool in trouble cannot tell taken from what was last known.
pub(super) fn check(
    registry: &Registry,
    reported: Vec<agent::PoolReport>,
    refused: &mut Vec<agent::RefusedPool>,
) -> Vec<Claim> {
    let mut claims = check_form(reported, refused);
    for claim in &mut claims {
        if let Some(last) = registry.pool(&claim.name, |view| view.report().clone()) {
            keep_figures(&mut claim.report, &last);
        }
    }
    claims
}

fn check_form(reported: Vec<agent::PoolReport>, refused: &mut Vec<agent::RefusedPool>) -> Vec<Claim> {
    let mut seen = HashSet::new();
    let mut claims = Vec::new();
    for report in reported.into_iter().take(PER_REPORT_AT_MOST) {
        let mut refuse = |reason: String| {
            let name = bounds::name(&report.name);
            refused.push(agent::RefusedPool { name, reason });
        };
        let name: PoolName = match report.name.parse() {
            Ok(name) => name,
            Err(error) => {
                refuse(format!("{error}"));
                continue;
            }
        };
        let unset = |device: &&agent::PoolDevice| device.role() == agent::DeviceRole::Unspecified;
        if let Some(device) = report.devices.iter().find(unset) {
            let path = bounds::name(&device.path);
            refuse(format!(
                "what its device {path} is to it is not set or not known; use an agent of this version"
            ));
            continue;
        }
        if !seen.insert(name.clone()) {
            refuse(format!("the report names {name} twice"));
            continue;
        }
        let report = bounds::pool(report);
        claims.push(Claim { name, report });
    }
    claims
}

/// A pool that is not mounted tells no figures: data does not leave a disk because a mount failed.
fn keep_figures(report: &mut agent::PoolReport, last: &agent::PoolReport) {
    if report.problem.is_empty() || report.size_bytes != 0 || report.backend != last.backend {
        return;
    }
    report.size_bytes = last.size_bytes;
    report.used_bytes = last.used_bytes;
    report.spare_bytes = last.spare_bytes;
    report.smallest_bytes = last.smallest_bytes;
    let profiles = [
        (&mut report.data_profile, &last.data_profile),
        (&mut report.metadata_profile, &last.metadata_profile),
    ];
    for (now, before) in profiles {
        if now.is_empty() {
            now.clone_from(before);
        }
    }
    if report.devices.is_empty() {
        report.devices.clone_from(&last.devices);
    }
}

/// New pools beyond what one host may own are refused: nothing would take them off the list again.
pub(super) fn refuse_beyond_bound(
    registry: &Registry,
    host: &HostName,
    claims: &mut Vec<Claim>,
    refused: &mut Vec<agent::RefusedPool>,
) {
    let mut room = PER_HOST_AT_MOST.saturating_sub(registry.count_pools_of(host));
    claims.retain(|claim| {
        if registry.pool_record(&claim.name).is_some() {
            return true;
        }
        let fits = room > 0;
        room = room.saturating_sub(1);
        if !fits {
            refused.push(agent::RefusedPool {
                name: claim.name.to_string(),
                reason: format!(
                    "host {host} owns {PER_HOST_AT_MOST} storage pools already, the most that a host may own"
                ),
            });
        }
        fits
    });
}

/// What becomes of a claim of `host`, given what is stored of the pool.
pub(super) fn decide(host: &HostName, claim: &Claim, stored: Option<&PoolRecord>) -> Decision<PoolRecord> {
    let now = UnixMillis::now();
    let fresh = |enrolled_at| PoolRecord {
        name: claim.name.clone(),
        host: host.clone(),
        report: claim.report.clone(),
        enrolled_at,
        changed_at: now,
    };
    match stored {
        None => Decision::Store(Box::new(fresh(now))),
        Some(record) if record.host != *host => Decision::Refuse(format!(
            "storage pool {} is owned by host {}; give it another name, or remove [storage] from the configuration of this host",
            claim.name, record.host
        )),
        Some(record) if same_but_figures(&record.report, &claim.report) => Decision::Keep,
        Some(record) => Decision::Store(Box::new(fresh(record.enrolled_at))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str) -> agent::PoolReport {
        agent::PoolReport {
            name: name.into(),
            backend: "btrfs".into(),
            size_bytes: 100,
            used_bytes: 10,
            spare_bytes: 5,
            smallest_bytes: 20,
            devices: vec![agent::PoolDevice {
                path: "/dev/sdb".into(),
                role: agent::DeviceRole::Member.into(),
                allocated_bytes: 7,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn stored(host: &str) -> PoolRecord {
        PoolRecord {
            name: "tank".parse().unwrap(),
            host: host.parse().unwrap(),
            report: report("tank"),
            enrolled_at: UnixMillis(1),
            changed_at: UnixMillis(1),
        }
    }

    fn decided(change: impl FnOnce(&mut agent::PoolReport)) -> Decision<PoolRecord> {
        let mut report = report("tank");
        change(&mut report);
        let name = "tank".parse().unwrap();
        decide(&"a".parse().unwrap(), &Claim { name, report }, Some(&stored("a")))
    }

    #[test]
    fn what_changes_with_every_file_is_not_stored() {
        let figures = decided(|report| {
            report.used_bytes = 11;
            report.spare_bytes = 4;
            report.smallest_bytes = 21;
            report.devices[0].allocated_bytes = 8;
        });
        assert!(matches!(figures, Decision::Keep));
        let changes: [fn(&mut agent::PoolReport); 6] = [
            |report| report.size_bytes += 1,
            |report| report.problem.push('x'),
            |report| report.path.push('x'),
            |report| report.devices[0].share_bytes += 1,
            |report| report.devices[0].role = agent::DeviceRole::Missing.into(),
            |report| report.backup_repository.push('x'),
        ];
        for change in changes {
            let Decision::Store(record) = decided(change) else {
                panic!("not stored")
            };
            assert_eq!(record.enrolled_at, UnixMillis(1));
            assert!(record.changed_at > UnixMillis(1));
        }
    }

    #[test]
    fn a_pool_that_is_not_mounted_keeps_its_last_figures() {
        let mut now = agent::PoolReport {
            backend: "btrfs".into(),
            problem: "not mounted".into(),
            ..Default::default()
        };
        keep_figures(&mut now, &report("tank"));
        let figures = (
            now.size_bytes,
            now.used_bytes,
            now.spare_bytes,
            now.smallest_bytes,
        );
        assert_eq!(figures, (100, 10, 5, 20));
        assert_eq!(now.devices, report("tank").devices);
        let mut well = agent::PoolReport {
            problem: String::new(),
            ..Default::default()
        };
        keep_figures(&mut well, &report("tank"));
        assert_eq!(well, agent::PoolReport::default());
    }

    #[test]
    fn a_pool_is_refused_that_is_named_twice_or_badly_or_has_a_device_of_no_role() {
        let mut roleless = report("c");
        roleless.devices[0].role = 0;
        let unknown = agent::PoolDevice {
            role: 77,
            ..Default::default()
        };
        let mut future = report("d");
        future.devices.push(unknown);
        let reports = vec![report("b"), report("b"), report("../x"), roleless, future];
        let mut refused = Vec::new();
        let claims = check_form(reports, &mut refused);
        assert_eq!(claims.len(), 1);
        let names: Vec<_> = refused.iter().map(|refusal| refusal.name.as_str()).collect();
        assert_eq!(names, ["b", "../x", "c", "d"]);
    }
}
