//! Holds a backup against what was counted when it was made, and lets restic check its repository.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostler_common::error::Retry;
use hostler_common::operation::{BackupId, ReadShare};
use serde_json::Value;

use super::count::Count;
use super::restic::fault::ResticFault;
use super::restic::locks::Sweep;
use super::restic::messages::Snapshot;
use super::restic::repository::{Call, DAYS, Ear};
use super::{Inner, named};
use crate::executor::plan::Planned;
use crate::executor::step::{Before, Progress, Step, StepError};

/// Between two lines about how far a check is.
const SAY_EVERY: Duration = Duration::from_secs(30);

pub(super) fn plan(inner: &Arc<Inner>, id: Option<BackupId>, read: ReadShare) -> Planned {
    let pool = &inner.settings.pool;
    Planned {
        success: format!("the backups of pool {pool} are good"),
        decided: Value::Null,
        says: Vec::new(),
        steps: vec![Box::new(VerifyStep {
            inner: Arc::clone(inner),
            id,
            read,
            locks: Sweep::default(),
        })],
    }
}

/// Without an id it is the newest backup that is counted; restic checks the whole repository in any case.
struct VerifyStep {
    inner: Arc<Inner>,
    id: Option<BackupId>,
    read: ReadShare,
    locks: Sweep,
}

impl Step for VerifyStep {
    fn name(&self) -> String {
        match &self.id {
            None => format!("check the backups of pool {}", self.inner.settings.pool),
            Some(id) => format!("check backup {id} of pool {}", self.inner.settings.pool),
        }
    }

    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        let ear = Ear::of(progress);
        let (repository, pool) = (&self.inner.repository, &self.inner.settings.pool);
        self.locks.begin(repository, &ear)?;
        let backups = self.inner.backups(&ear)?;
        let id = self.id.clone().unwrap_or(BackupId::Latest);
        let backup =
            named::find(&backups, &id, pool).map_err(|fault| StepError::new(&fault, Retry::Never))?;
        let count = is_whole(&self.inner, backup, &ear)?;
        check(&self.inner, self.read, &ear)?;
        let all = match backups.len() {
            1 => "the only one".to_owned(),
            count => format!("one of {count}"),
        };
        progress.conclude(format!(
            "backup {} of pool {pool} ({all}) is whole: {count}; the repository is checked, {} % of it read back",
            backup.short(),
            self.read.percent()
        ));
        Ok(())
    }

    fn undo(&self, _before: Before, _progress: &Progress) -> Result<(), StepError> {
        self.locks.end(&self.inner.repository);
        Ok(())
    }
}

/// Counts what is in `backup` and fails when that is nothing, or not what was there to be backed up.
pub(super) fn is_whole(inner: &Inner, backup: &Snapshot, ear: &Ear<'_>) -> Result<Count, StepError> {
    let mut count = Count::default();
    inner
        .repository
        .nodes(&backup.id, &mut |node| count.add_node(&node), ear)?;
    let refused = |text: String| Err(StepError::message(text, Retry::Never));
    let short = backup.short();
    match Count::of(backup) {
        _ if count.files == 0 => refused(format!("backup {short} is empty: there is no file in it")),
        Some(was) if was != count => refused(format!(
            "backup {short} does not hold what was backed up: {count}, and there were {was}"
        )),
        Some(_) | None => Ok(count),
    }
}

/// restic's own check, with a share of the data read back.
pub(super) fn check(inner: &Inner, read: ReadShare, ear: &Ear<'_>) -> Result<(), ResticFault> {
    // Of a check that a crash ended.
    remove_stray_caches(&inner.settings.cache_dir);
    let share = match read {
        ReadShare::ALL => "--read-data".to_owned(),
        share => format!("--read-data-subset={}%", share.percent()),
    };
    let mut said = Instant::now();
    let mut on_line = |line: &str| {
        if said.elapsed() >= SAY_EVERY
            && let Some((percent, what)) = how_far(line)
        {
            said = Instant::now();
            ear.say(format!("checked {what} ({percent} %)"));
        }
    };
    let call = Call::of("check", &["check".to_owned(), share]).on_line(&mut on_line);
    inner.repository.run(call, ear).map(|_| ())
}

/// From `[0:03] 70.89%  56 / 79 packs`.
fn how_far(line: &str) -> Option<(u32, &str)> {
    let (percent, what) = line.strip_prefix('[')?.split_once("] ")?.1.split_once('%')?;
    let percent = percent.trim().split('.').next()?.parse().ok()?;
    Some((percent, what.trim()))
}

/// A check that is killed leaves its own cache, as large as the repository's metadata.
fn remove_stray_caches(cache_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(cache_dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("restic-check-cache-")
        {
            // It only takes room.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_check_is_is_read_from_its_lines() {
        assert_eq!(
            how_far("[0:03] 70.89%  56 / 79 packs"),
            Some((70, "56 / 79 packs"))
        );
        for line in ["", "[x", "load indexes", "[0:03] abc%"] {
            assert_eq!(how_far(line), None);
        }
    }
}
