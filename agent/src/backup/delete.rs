//! Deletes a backup, and never the last one.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::{Chain, Retry};
use hostler_common::operation::BackupId;
use hostler_common::rpc::hostler::agent::v1::DryRunAnswer;
use serde_json::{Value, json};

use super::count::Count;
use super::restic::locks;
use super::restic::messages::Snapshot;
use super::restic::repository::{DAYS, Ear};
use super::{Inner, named};
use crate::executor::plan::Planned;
use crate::executor::step::{Before, Progress, Step, StepError};

pub(super) fn plan(inner: &Arc<Inner>, id: &BackupId, decided: Option<&Value>) -> Result<Planned, String> {
    let full = match decided.and_then(|decided| decided["backup"].as_str()) {
        Some(full) => full.to_owned(),
        None => choose(inner, id)?.0.id,
    };
    Ok(Planned {
        success: format!(
            "backup {} of pool {} is deleted",
            short(&full),
            inner.settings.pool
        ),
        decided: json!({ "backup": full }),
        says: Vec::new(),
        steps: vec![Box::new(DeleteStep {
            inner: Arc::clone(inner),
            id: full,
        })],
    })
}

pub(super) fn dry_run(inner: &Inner, id: &BackupId) -> Result<DryRunAnswer, String> {
    let (backup, stay) = choose(inner, id)?;
    let pool = &inner.settings.pool;
    let newest = stay.last().map_or("", |newest| newest.short());
    Ok(DryRunAnswer {
        lines: vec![
            format!(
                "forget backup {} of pool {pool}, {}",
                backup.short(),
                described(&backup)
            ),
            "remove from the repository what only this backup holds".to_owned(),
        ],
        outcome: format!(
            "backup {} of pool {pool} would be deleted; {}, the newest of them {newest}",
            backup.short(),
            would_stay(stay.len())
        ),
        size_change_bytes: 0,
    })
}

fn would_stay(count: usize) -> String {
    match count {
        1 => "1 backup would stay".to_owned(),
        count => format!("{count} backups would stay"),
    }
}

fn described(backup: &Snapshot) -> String {
    let time = backup.time.get(..19).unwrap_or(&backup.time).replace('T', " ");
    match Count::of(backup) {
        Some(count) => format!("of {time}, {count}"),
        None => format!("of {time}"),
    }
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn last_one(id: &str, inner: &Inner) -> String {
    format!(
        "backup {} is the last backup of pool {} and stays; make another one first, by `hostler backups create`",
        short(id),
        inner.settings.pool
    )
}

/// The backup that is meant, and those that stay. Err is one line.
fn choose(inner: &Inner, id: &BackupId) -> Result<(Snapshot, Vec<Snapshot>), String> {
    let all = inner.backups(&Ear::none());
    let all = all.map_err(|fault| Chain(&fault).to_string())?;
    let backup = named::find(&all, id, &inner.settings.pool).map_err(|fault| fault.to_string())?;
    let backup = backup.clone();
    let stay: Vec<_> = all.into_iter().filter(|other| other.id != backup.id).collect();
    match stay.is_empty() {
        true => Err(last_one(&backup.id, inner)),
        false => Ok((backup, stay)),
    }
}

struct DeleteStep {
    inner: Arc<Inner>,
    /// In full.
    id: String,
}

impl Step for DeleteStep {
    fn name(&self) -> String {
        format!(
            "delete backup {} of pool {}",
            short(&self.id),
            self.inner.settings.pool
        )
    }

    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Active)
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let ear = Ear::of(progress);
        let repository = &self.inner.repository;
        locks::remove_stale(repository, &ear)?;
        let all = self.inner.backups(&ear)?;
        if !all.iter().any(|backup| backup.id == self.id) {
            progress.say(format!("backup {} is gone already", short(&self.id)));
            return Ok(());
        }
        if all.len() == 1 {
            return Err(StepError::message(last_one(&self.id, &self.inner), Retry::Never));
        }
        let Err(fault) = repository.forget(&self.id, &ear) else {
            return Ok(());
        };
        // The backup is forgotten before its room is freed, and forgotten is deleted, whoever cancelled then.
        let gone = repository
            .backups(&Ear::deaf(progress))?
            .iter()
            .all(|backup| backup.id != self.id);
        if !gone {
            return Err(fault.into());
        }
        let text = format!(
            "backup {} of pool {} is deleted; its room is not freed yet, a later backup tries again: {}",
            short(&self.id),
            self.inner.settings.pool,
            Chain(&fault)
        );
        progress.say(&text);
        progress.conclude(text);
        Ok(())
    }

    /// What is deleted does not come back; and a delete that failed has deleted nothing.
    fn undo(&self, _before: Before, _progress: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}
