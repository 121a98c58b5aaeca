//! What must be so whenever everything has settled, whatever was killed before. Pure: it judges evidence and gathers
//! none.

use std::collections::BTreeSet;

use hostler_common::rpc::hostler::agent::v1::DeviceRole;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};

use super::client::{Call, Told};
use super::truth::Truth;
use super::world::{ATTEMPTS, Fallen};
use crate::pool::Checksums;

/// What is known after a round.
#[derive(Debug)]
pub struct Evidence {
    /// What was true when nothing ran.
    pub before: Truth,
    /// What is true now.
    pub after: Truth,
    /// The pool's files as a restore makes them.
    pub files: Checksums,
    /// What the clients came to know.
    pub told: Vec<Told>,
    /// The operations of this round.
    pub made: Vec<fleet::Operation>,
    /// Every operation that there has been.
    pub history: Vec<fleet::Operation>,
    /// How many ids have ever been acknowledged, and which of them the history lacks.
    pub lost: BTreeSet<String>,
    /// The hypervisor as it is listed.
    pub hypervisor: fleet::Hypervisor,
    /// The pool as it is listed.
    pub pool: Option<fleet::StoragePool>,
    /// Two activations at once.
    pub overlaps: String,
    /// What should have been taken away.
    pub leftovers: Vec<String>,
    /// Journals that cannot be read.
    pub damaged: Vec<String>,
    /// Programs that ended by themselves.
    pub fallen: Fallen,
    /// Lines of the programs that tell of a panic.
    pub panics: Vec<String>,
    /// Whether the round was made so that a person is needed before the attempts are used up.
    pub attention_is_due: bool,
}

/// An invariant and its name.
pub type Invariant = (&'static str, fn(&Evidence) -> Result<(), String>);

/// All of them.
pub const ALL: [Invariant; 12] = [
    ("no program ends by itself", invariant_programs_live),
    (
        "nothing acknowledged is lost",
        invariant_nothing_acknowledged_is_lost,
    ),
    ("every operation ends", invariant_every_operation_ends),
    ("what a client was told is what is kept", invariant_told_is_kept),
    (
        "one mutation of a resource at a time",
        invariant_one_mutation_at_a_time,
    ),
    ("fences grow", invariant_fences_grow),
    (
        "the hypervisor is what it is listed as",
        invariant_the_hypervisor_is_as_listed,
    ),
    (
        "the pool is what it is listed as",
        invariant_the_pool_is_as_listed,
    ),
    (
        "completed means done, failed means undone",
        invariant_ends_are_true,
    ),
    (
        "attention is needed only when the attempts are used up",
        invariant_attention_is_due,
    ),
    ("no byte of the pool is lost", invariant_no_byte_is_lost),
    ("nothing is left behind", invariant_nothing_is_left),
];

fn demand(held: bool, words: impl FnOnce() -> String) -> Result<(), String> {
    match held {
        true => Ok(()),
        false => Err(words()),
    }
}

fn needs_attention(evidence: &Evidence) -> bool {
    evidence.made.iter().any(|operation| operation.needs_attention)
}

fn invariant_programs_live(evidence: &Evidence) -> Result<(), String> {
    demand(evidence.fallen.is_empty(), || {
        format!("ended by themselves: {:?}", evidence.fallen)
    })?;
    demand(evidence.panics.is_empty(), || evidence.panics.join("\n"))
}

fn invariant_nothing_acknowledged_is_lost(evidence: &Evidence) -> Result<(), String> {
    demand(evidence.lost.is_empty(), || {
        format!("not in the history: {:?}", evidence.lost)
    })
}

fn invariant_every_operation_ends(evidence: &Evidence) -> Result<(), String> {
    let unended = evidence
        .history
        .iter()
        .filter(|operation| operation.ended.is_none());
    let unended: Vec<_> = unended
        .map(|operation| {
            format!(
                "{} {} {:?}: {}",
                operation.kind,
                operation.id,
                operation.state(),
                operation.message
            )
        })
        .collect();
    demand(unended.is_empty(), || unended.join("; "))
}

fn invariant_told_is_kept(evidence: &Evidence) -> Result<(), String> {
    for told in &evidence.told {
        let Some(id) = &told.id else { continue };
        let kept = evidence.made.iter().find(|operation| operation.id == *id);
        let kept = kept.ok_or_else(|| format!("{} {id} is not in the history", told.call.kind()))?;
        demand(
            Some(kept.state()) == told.end && kept.kind == told.call.kind(),
            || {
                format!(
                    "the client of {} {id} was told {:?} ({}), kept is {} {:?}",
                    told.call.kind(),
                    told.end,
                    told.last,
                    kept.kind,
                    kept.state()
                )
            },
        )?;
    }
    let asked = evidence.told.len();
    demand(evidence.made.len() <= asked, || {
        format!("{asked} calls became {} operations", evidence.made.len())
    })
}

fn invariant_one_mutation_at_a_time(evidence: &Evidence) -> Result<(), String> {
    demand(evidence.overlaps.is_empty(), || evidence.overlaps.clone())
}

fn invariant_fences_grow(evidence: &Evidence) -> Result<(), String> {
    for resource in ["hv1", "default"] {
        // Newest first; what no agent has taken has none.
        let taken = evidence
            .history
            .iter()
            .filter(|operation| operation.resource == resource && operation.fence > 0);
        let fences: Vec<_> = taken.map(|operation| operation.fence).collect();
        demand(fences.is_sorted_by(|newer, older| newer > older), || {
            format!("the fences of {resource}, newest first: {fences:?}")
        })?;
    }
    Ok(())
}

fn invariant_the_hypervisor_is_as_listed(evidence: &Evidence) -> Result<(), String> {
    if needs_attention(evidence) {
        return Ok(());
    }
    let expected = match evidence.after.active {
        true => HypervisorState::AvailableToDestroy,
        false => HypervisorState::AvailableToCreate,
    };
    let listed = evidence.hypervisor.state();
    demand(listed == expected, || {
        format!(
            "the activation is {}, listed is {listed:?}: {}",
            if evidence.after.active { "up" } else { "down" },
            evidence.hypervisor.reason
        )
    })
}

fn invariant_the_pool_is_as_listed(evidence: &Evidence) -> Result<(), String> {
    let Some(truth) = &evidence.after.pool else {
        return Ok(());
    };
    if needs_attention(evidence) {
        return Ok(());
    }
    let pool = evidence.pool.as_ref().ok_or("no pool is listed")?;
    let report = pool.report.clone().unwrap_or_default();
    let problem = format!("{}{}", pool.reason, report.problem);
    demand(pool.connected && problem.is_empty(), || {
        format!("listed as connected: {}, {problem}", pool.connected)
    })?;
    demand(report.size_bytes == truth.size, || {
        format!(
            "the kernel has {} bytes, listed are {}",
            truth.size, report.size_bytes
        )
    })?;
    let members = report
        .devices
        .iter()
        .filter(|device| device.role() == DeviceRole::Member);
    let listed: BTreeSet<_> = members
        .map(|device| {
            let path = std::fs::canonicalize(&device.path);
            path.map_or_else(|_| device.path.clone(), |path| path.display().to_string())
        })
        .collect();
    demand(listed == truth.members, || {
        format!("the kernel has {:?}, listed are {listed:?}", truth.members)
    })
}

fn invariant_ends_are_true(evidence: &Evidence) -> Result<(), String> {
    let (before, after) = (&evidence.before, &evidence.after);
    let mut hypervisor_changed = false;
    let mut pool_changed = false;
    for told in &evidence.told {
        let operation = evidence
            .made
            .iter()
            .find(|operation| operation.kind == told.call.kind());
        let Some(operation) = operation else { continue };
        if operation.needs_attention {
            match told.call {
                Call::Create | Call::Destroy | Call::Hold => hypervisor_changed = true,
                _ => pool_changed = true,
            }
            continue;
        }
        if operation.state() != OperationState::Completed {
            continue;
        }
        let done = match &told.call {
            Call::Create => {
                hypervisor_changed = true;
                after.active
            }
            Call::Destroy => {
                hypervisor_changed = true;
                !after.active
            }
            Call::Expand(min) => {
                pool_changed = true;
                grown(before, after).is_some_and(|grown| grown >= i128::from(*min))
            }
            Call::Shrink(max) => {
                pool_changed = true;
                grown(before, after).is_some_and(|grown| grown < 0 && -grown <= i128::from(*max))
            }
            Call::Backup => new_backups(before, after).len() == 1,
            Call::Delete(id) => after.pool.as_ref().is_none_or(|pool| !pool.backups.contains(id)),
            // Judged with the bytes.
            Call::Restore(_) => true,
            // They change nothing that could be seen.
            Call::Verify | Call::Hold => true,
        };
        demand(done, || {
            format!(
                "{:?} is COMPLETED ({}), but before {} and now {}",
                told.call,
                operation.message,
                brief(before),
                brief(after)
            )
        })?;
    }
    demand(hypervisor_changed || before.active == after.active, || {
        format!(
            "nothing completed, but the activation was {} and is {}",
            before.active, after.active
        )
    })?;
    let same = |truth: &Truth| truth.pool.as_ref().map(|pool| (pool.size, pool.members.clone()));
    demand(pool_changed || same(before) == same(after), || {
        format!(
            "nothing completed, but the pool was {} and is {}",
            brief(before),
            brief(after)
        )
    })?;
    let kept = |truth: &Truth| truth.pool.as_ref().is_none_or(|pool| !pool.backups.is_empty());
    demand(!kept(before) || kept(after), || {
        "the last backup is gone".to_owned()
    })
}

fn grown(before: &Truth, after: &Truth) -> Option<i128> {
    let size = |truth: &Truth| truth.pool.as_ref().map(|pool| i128::from(pool.size));
    Some(size(after)? - size(before)?)
}

fn new_backups(before: &Truth, after: &Truth) -> Vec<String> {
    let ids = |truth: &Truth| truth.pool.as_ref().map(|pool| pool.backups.clone());
    let (before, after) = (ids(before).unwrap_or_default(), ids(after).unwrap_or_default());
    after.difference(&before).cloned().collect()
}

fn brief(truth: &Truth) -> String {
    match &truth.pool {
        None => format!("active: {}", truth.active),
        Some(pool) => format!(
            "active: {}, {} bytes on {:?}, backups {:?}",
            truth.active, pool.size, pool.members, pool.backups
        ),
    }
}

fn invariant_attention_is_due(evidence: &Evidence) -> Result<(), String> {
    let early = evidence
        .made
        .iter()
        .find(|operation| operation.needs_attention && operation.attempts < ATTEMPTS)
        .filter(|_| !evidence.attention_is_due);
    demand(early.is_none(), || {
        early
            .map(|it| {
                format!(
                    "{} {} after {} attempts: {}",
                    it.kind, it.id, it.attempts, it.message
                )
            })
            .unwrap_or_default()
    })
}

fn invariant_no_byte_is_lost(evidence: &Evidence) -> Result<(), String> {
    let (Some(before), Some(after)) = (&evidence.before.pool, &evidence.after.pool) else {
        return Ok(());
    };
    let restored = evidence
        .made
        .iter()
        .find(|operation| operation.kind == "RestoreBackup");
    let expected = match restored {
        Some(operation) if operation.state() == OperationState::Completed => &evidence.files,
        // Nobody knows.
        Some(operation) if operation.needs_attention => &after.files,
        _ => &before.files,
    };
    let differs = |path: &&std::path::PathBuf| expected.get(*path) != after.files.get(*path);
    let paths: BTreeSet<_> = expected.keys().chain(after.files.keys()).collect();
    let other: Vec<_> = paths.into_iter().filter(differs).collect();
    demand(other.is_empty(), || {
        format!("these files are not what they were: {other:?}")
    })
}

fn invariant_nothing_is_left(evidence: &Evidence) -> Result<(), String> {
    demand(evidence.damaged.is_empty(), || {
        format!("journals that cannot be read: {:?}", evidence.damaged)
    })?;
    // The next operation clears away what one left that was given up.
    demand(evidence.leftovers.is_empty() || needs_attention(evidence), || {
        evidence.leftovers.join("; ")
    })
}
