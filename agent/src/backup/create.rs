//! Makes a backup: snapshot of the pool, restic, a check of what it saved, then the rules for what is kept.
//!
//! The order matters twice. The old backups are thinned out last, when the new one is known to be good: nothing
//! can fail after it, so a backup is never taken back after others were removed in its favour. And the counts that
//! the backup is held against are made before restic runs, from the snapshot, and travel as tags.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_common::error::{Chain, Retry};
use hostler_common::id::OperationId;
use serde_json::Value;

use super::count::{self, Count};
use super::marks::Mark;
use super::pace::Pace;
use super::restic::fault::ResticFault;
use super::restic::locks::Sweep;
use super::restic::messages::{BackupLine, Snapshot};
use super::restic::repository::{Call, DAYS, Ear};
use super::{Inner, OWN_FOLDER, verify};
use crate::executor::plan::Planned;
use crate::executor::step::{Before, Progress, Step, StepError};

pub(super) fn plan(inner: &Arc<Inner>, operation: OperationId) -> Planned {
    let shared = Arc::new(Shared::default());
    let steps = [
        Kind::Prepare,
        Kind::Snapshot,
        Kind::BackUp,
        Kind::Check,
        Kind::RemoveSnapshot,
        Kind::Keep,
    ];
    let step = |kind| {
        Box::new(CreateStep {
            inner: Arc::clone(inner),
            operation,
            kind,
            shared: Arc::clone(&shared),
        }) as Box<dyn Step>
    };
    Planned {
        steps: steps.into_iter().map(step).collect(),
        success: format!("pool {} is backed up", inner.settings.pool),
        decided: Value::Null,
        says: Vec::new(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prepare,
    Snapshot,
    BackUp,
    Check,
    RemoveSnapshot,
    Keep,
}

/// What later steps need of earlier ones. After a crash it is asked for again, or not said.
#[derive(Default)]
struct Shared {
    made: Mutex<Option<Snapshot>>,
    new: Mutex<Option<Bytes>>,
    warnings: Mutex<Vec<String>>,
    locks: Sweep,
}

struct CreateStep {
    inner: Arc<Inner>,
    operation: OperationId,
    kind: Kind,
    shared: Arc<Shared>,
}

impl Step for CreateStep {
    fn name(&self) -> String {
        let pool = &self.inner.settings.pool;
        match self.kind {
            Kind::Prepare => "check the backup repository".to_owned(),
            Kind::Snapshot => format!("take a snapshot of pool {pool}"),
            Kind::BackUp => format!("back up pool {pool}"),
            Kind::Check => "check the backup".to_owned(),
            Kind::RemoveSnapshot => format!("remove the snapshot of pool {pool}"),
            Kind::Keep => "keep backups by the rules".to_owned(),
        }
    }

    fn deadline(&self) -> Duration {
        DAYS
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(match self.kind {
            // What is there is a dead operation's, and was removed by the first step.
            Kind::Snapshot | Kind::BackUp => Before::Absent,
            Kind::Prepare | Kind::Check | Kind::RemoveSnapshot | Kind::Keep => Before::Nothing,
        })
    }

    fn apply(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        match self.kind {
            Kind::Prepare => self.prepare(progress),
            Kind::Snapshot => {
                progress.check_cancelled()?;
                Ok(self.inner.backend.take_snapshot().map(|_| ())?)
            }
            Kind::BackUp => self.back_up(progress),
            Kind::Check => self.check(progress),
            Kind::RemoveSnapshot => {
                self.remove_snapshot(progress);
                Ok(())
            }
            Kind::Keep => {
                self.keep(progress);
                Ok(())
            }
        }
    }

    fn undo(&self, _before: Before, progress: &Progress) -> Result<(), StepError> {
        match self.kind {
            Kind::Check | Kind::RemoveSnapshot | Kind::Keep => Ok(()),
            Kind::Prepare => {
                self.shared.locks.end(&self.inner.repository);
                Ok(())
            }
            Kind::Snapshot => Ok(self.inner.backend.remove_snapshot()?),
            Kind::BackUp => {
                self.forget(progress);
                Ok(())
            }
        }
    }
}

impl CreateStep {
    fn tag(&self) -> String {
        format!("operation:{}", self.operation)
    }

    /// The backup that this operation made, if it has.
    fn made(&self, ear: &Ear<'_>) -> Result<Option<Snapshot>, ResticFault> {
        let mut made = self.shared.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            let tag = self.tag();
            let backups = self.inner.repository.backups(ear)?;
            let ours = |backup: &Snapshot| backup.tags.iter().flatten().any(|known| *known == tag);
            *made = backups.into_iter().rev().find(ours);
        }
        Ok(made.clone())
    }

    fn prepare(&self, progress: &Progress) -> Result<(), StepError> {
        let ear = Ear::of(progress);
        self.shared.locks.begin(&self.inner.repository, &ear)?;
        if let Some(stray) = self.inner.backend.found_snapshot()? {
            self.inner.backend.remove_snapshot()?;
            progress.say(format!(
                "removed the snapshot {}, which an operation that died left behind",
                stray.path.display()
            ));
        }
        Mark::Keeping.clear_of_others(&self.inner.settings, &self.operation.to_string());
        self.remove_doubtful(progress, &ear)
    }

    /// Backups that an operation made and could neither check nor take back.
    fn remove_doubtful(&self, progress: &Progress, ear: &Ear<'_>) -> Result<(), StepError> {
        let (settings, own) = (&self.inner.settings, self.operation.to_string());
        let doubtful = Mark::Unchecked.all(settings);
        let others: Vec<_> = doubtful.iter().filter(|operation| **operation != own).collect();
        if others.is_empty() {
            return Ok(());
        }
        let backups = self.inner.repository.backups(ear)?;
        for operation in others {
            let made = |backup: &&Snapshot| backup.tag("operation:") == Some(operation.as_str());
            if let Some(backup) = backups.iter().find(made) {
                if let Err(fault) = self.inner.repository.forget_now(&backup.id, ear) {
                    // It is passed over by all, and the next one tries again.
                    progress.say(format!(
                        "backup {}, which was never checked, stays: {}",
                        backup.short(),
                        Chain(&fault)
                    ));
                    continue;
                }
                progress.say(format!(
                    "removed backup {}, which was never checked",
                    backup.short()
                ));
            }
            Mark::Unchecked.clear(settings, operation);
        }
        Ok(())
    }

    fn back_up(&self, progress: &Progress) -> Result<(), StepError> {
        let ear = Ear::of(progress);
        self.shared.locks.go_on(&self.inner.repository, &ear)?;
        // Without the mark restic has not run.
        let begun = Mark::Unchecked.is_set(&self.inner.settings, &self.operation.to_string());
        if begun && let Some(backup) = self.made(&ear)? {
            progress.say(format!("backup {} is there already", backup.short()));
            return Ok(());
        }
        let pool = &self.inner.settings.pool;
        let snapshot = self.inner.backend.found_snapshot()?.ok_or_else(|| {
            StepError::message(format!("the snapshot of pool {pool} is gone"), Retry::Never)
        })?;
        let count = count::walk(&snapshot.path, Some(OWN_FOLDER), &ear)?;
        if count.files == 0 {
            let text =
                format!("pool {pool} is empty: it holds no file, and an empty backup is worth nothing");
            return Err(StepError::message(text, Retry::Never));
        }
        progress.say(format!("backing up {count}"));

        Mark::Unchecked.set(&self.inner.settings, &self.operation.to_string())?;
        let mut arguments: Vec<String> = ["backup", ".", "--json", "--tag", "hostler"]
            .map(str::to_owned)
            .into();
        arguments.extend([
            "--tag".to_owned(),
            format!("pool:{pool}"),
            "--tag".to_owned(),
            self.tag(),
        ]);
        for (name, amount) in count.tags() {
            arguments.extend(["--tag".to_owned(), format!("{name}:{amount}")]);
        }
        arguments.push("--exclude".to_owned());
        arguments.push(escaped(&snapshot.path.join(OWN_FOLDER)));
        let mut pace = Pace::of(self.name(), count);
        let mut summary = None;
        let mut on_line = |line: &str| match serde_json::from_str(line) {
            Ok(BackupLine::Status(status)) => {
                let done = Count {
                    files: status.files_done,
                    bytes: status.bytes_done,
                };
                pace.due(|| Some(done))
                    .into_iter()
                    .for_each(|measure| progress.measure(measure));
            }
            Ok(BackupLine::Summary(said)) => summary = Some(said),
            // Not JSON, or nothing that is of use.
            Ok(BackupLine::Other) | Err(_) => {}
        };
        let call = Call::of("backup", &arguments)
            .folder(snapshot.path.clone())
            .on_line(&mut on_line);
        self.inner.repository.run(call, &ear)?;
        let new = summary.map(|summary| Bytes(summary.data_added));
        *self.shared.new.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn check(&self, progress: &Progress) -> Result<(), StepError> {
        let ear = Ear::of(progress);
        self.shared.locks.go_on(&self.inner.repository, &ear)?;
        let backup = self
            .made(&ear)?
            .ok_or_else(|| StepError::message("the backup is not in the repository", Retry::Never))?;
        verify::is_whole(&self.inner, &backup, &ear)?;
        verify::check(&self.inner, self.inner.settings.read_back, &ear)?;
        Mark::Unchecked.clear(&self.inner.settings, &self.operation.to_string());
        Ok(())
    }

    fn remove_snapshot(&self, progress: &Progress) {
        if let Err(fault) = self.inner.backend.remove_snapshot() {
            let warning = format!(
                "the snapshot of the pool could not be removed, the next backup tries again: {}",
                Chain(&fault)
            );
            self.warn(progress, warning);
        }
    }

    /// From here on the new backup stays whatever happens: others may go in its favour. A file says so, since a crash
    /// and a cancel may follow, even after the last line of this: it stays until the next backup.
    fn keep(&self, progress: &Progress) {
        let (inner, ear) = (&self.inner, Ear::of(progress));
        let own = self.operation.to_string();
        let marked = Mark::Keeping
            .set(&inner.settings, &own)
            .map_err(|error| error.to_string());
        let kept = marked.and_then(|()| {
            let rules = inner.settings.keep.rules();
            let kept = inner.repository.forget_by_rules(&rules, &self.tag(), &ear);
            kept.map_err(|fault| Chain(&fault).to_string())
        });
        let kept = match kept {
            Ok(groups) => {
                let count = |list: Option<Vec<Snapshot>>| list.map_or(0, |list| list.len());
                format!("{} kept, {} removed", count(groups.keep), count(groups.remove))
            }
            Err(cause) => {
                let warning = format!("older backups were not thinned out: {cause}");
                self.warn(progress, warning.clone());
                warning
            }
        };
        progress.conclude(self.conclusion(&kept, &Ear::deaf(progress)));
    }

    fn conclusion(&self, kept: &str, ear: &Ear<'_>) -> String {
        let pool = &self.inner.settings.pool;
        let made = self.made(ear).ok().flatten();
        let backup = made.map_or_else(
            || format!("pool {pool} is backed up"),
            |backup| {
                let count = Count::of(&backup).unwrap_or_default();
                format!("backup {} of pool {pool}: {count}", backup.short())
            },
        );
        let new = self.shared.new.lock().unwrap_or_else(PoisonError::into_inner);
        let new = new.map_or_else(String::new, |new| format!(", {new} new"));
        let share = self.inner.settings.read_back.percent();
        let mut text = format!("{backup}{new}; checked, {share} % read back; {kept}");
        for warning in self
            .shared
            .warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            if !text.contains(warning) {
                text = format!("{text}; {warning}");
            }
        }
        text
    }

    fn warn(&self, progress: &Progress, warning: String) {
        tracing::warn!(pool = %self.inner.settings.pool, warning, "a backup is good, what comes after it is not");
        progress.say(format!("warning: {warning}"));
        let mut warnings = self
            .shared
            .warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        warnings.push(warning);
    }

    /// The undo of the backup. Its data stays until the next prune: the next backup finds most of it there. A
    /// repository that is gone or busy does not hold the pool up: nobody takes an unchecked backup for a good one.
    fn forget(&self, progress: &Progress) {
        let (settings, own) = (&self.inner.settings, self.operation.to_string());
        if Mark::Keeping.is_set(settings, &own) {
            progress.say("the new backup stays: it is good, and older ones may have been removed already");
            return;
        }
        let ear = Ear::deaf(progress);
        let forgotten = self.made(&ear).and_then(|made| match made {
            Some(backup) => self.inner.repository.forget_now(&backup.id, &ear),
            None => Ok(()),
        });
        match forgotten {
            Ok(()) => Mark::Unchecked.clear(settings, &own),
            // Set again: it was checked when a later step failed.
            Err(fault) => match Mark::Unchecked.set(settings, &own) {
                Ok(()) => progress.say(format!(
                    "the new backup cannot be removed now and does not count; the next one removes it: {}",
                    Chain(&fault)
                )),
                Err(error) => progress.say(format!(
                    "warning: the new backup stays: {}: {error}",
                    Chain(&fault)
                )),
            },
        }
    }
}

/// The path as a pattern of restic that means nothing else.
pub(super) fn escaped(path: &Path) -> String {
    let text = path.display().to_string();
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
