//! Empty files in restic's cache folder that outlive this process: what must be known of a backup after a crash and
//! cannot be written into restic's snapshot, whose tags are part of its id.
//!
//! Losing them costs little: a backup that nobody has checked then counts as one that was.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use hostler_common::error::Retry;

use super::Settings;
use crate::executor::step::StepError;

/// What is marked of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// The backup that it makes, or has made, is not known to be good.
    Unchecked,
    /// Its backup is good, and others may have been removed in its favour.
    Keeping,
}

impl Mark {
    fn prefix(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked-",
            Self::Keeping => "keeping-",
        }
    }

    fn path(self, settings: &Settings, operation: &str) -> PathBuf {
        settings.cache_dir.join(format!("{}{operation}", self.prefix()))
    }

    pub(super) fn set(self, settings: &Settings, operation: &str) -> Result<(), StepError> {
        let path = self.path(settings, operation);
        let made = File::create(&path).and_then(|file| file.sync_all());
        made.map_err(|error| {
            StepError::message(format!("cannot write {}: {error}", path.display()), Retry::Never)
        })
    }

    pub(super) fn clear(self, settings: &Settings, operation: &str) {
        let path = self.path(settings, operation);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a mark of a backup cannot be removed");
        }
    }

    /// Of operations that are over: only one works on a pool at a time.
    pub(super) fn clear_of_others(self, settings: &Settings, own: &str) {
        let all = self.all(settings);
        for operation in all.iter().filter(|operation| *operation != own) {
            self.clear(settings, operation);
        }
    }

    pub(super) fn is_set(self, settings: &Settings, operation: &str) -> bool {
        self.path(settings, operation).exists()
    }

    /// The operations that have it.
    pub(super) fn all(self, settings: &Settings) -> Vec<String> {
        let entries = std::fs::read_dir(&settings.cache_dir).into_iter().flatten();
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix(self.prefix()).map(str::to_owned)
            })
            .collect()
    }
}
