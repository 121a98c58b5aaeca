//! Which files of a backup are meant, and that they are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hostler_common::error::Retry;
use hostler_common::operation::PoolPath;
use thiserror::Error;

use super::super::count::Count;
use super::super::create::escaped;
use super::super::restic::fault::ResticFault;
use super::super::restic::repository::{Ear, Repository};
use crate::executor::step::StepError;

/// Missing paths that are named in an error.
const NAMES: usize = 5;

/// All of a backup, or some files and directories of it, none of them inside another.
#[derive(Debug)]
pub(super) struct Selection(Vec<PathBuf>);

/// Why the selection cannot be restored.
#[derive(Debug, Error)]
pub(super) enum SelectionFault {
    #[error("backup {backup} holds no {names}; paths begin at the pool's root, and case counts")]
    Missing { backup: String, names: String },
    #[error(transparent)]
    Restic(#[from] ResticFault),
}

impl From<SelectionFault> for StepError {
    fn from(fault: SelectionFault) -> Self {
        match fault {
            SelectionFault::Restic(fault) => fault.into(),
            fault @ SelectionFault::Missing { .. } => Self::new(&fault, Retry::Never),
        }
    }
}

impl Selection {
    /// No paths mean everything.
    pub(super) fn of(paths: &[PoolPath]) -> Self {
        let all: BTreeSet<&Path> = paths.iter().map(PoolPath::as_path).collect();
        let within = |path: &Path| path.ancestors().skip(1).any(|above| all.contains(above));
        Self(
            all.iter()
                .filter(|path| !within(path))
                .map(|path| path.to_path_buf())
                .collect(),
        )
    }

    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// As arguments of `restic restore`.
    pub(super) fn includes(&self) -> Vec<String> {
        self.0
            .iter()
            .flat_map(|path| ["--include".to_owned(), escaped(&Path::new("/").join(path))])
            .collect()
    }

    /// Counts the selected files in the backup. Fails when one of the paths is not there.
    pub(super) fn count(
        &self,
        repository: &Repository,
        backup: &str,
        ear: &Ear<'_>,
    ) -> Result<Count, SelectionFault> {
        let wanted: BTreeSet<&Path> = self.0.iter().map(PathBuf::as_path).collect();
        let mut missing = wanted.clone();
        let mut count = Count::default();
        repository.nodes(
            backup,
            &mut |node| {
                let path = Path::new(node.path.trim_start_matches('/'));
                missing.remove(path);
                if wanted.is_empty() || path.ancestors().any(|above| wanted.contains(above)) {
                    count.add_node(&node);
                }
            },
            ear,
        )?;
        if missing.is_empty() {
            return Ok(count);
        }
        let shown: Vec<_> = missing
            .iter()
            .take(NAMES)
            .map(|path| format!("{:?}", path.display().to_string()))
            .collect();
        let mut names = shown.join(" and no ");
        if missing.len() > NAMES {
            names = format!("{names} and {} others", missing.len() - NAMES);
        }
        Err(SelectionFault::Missing {
            backup: backup.get(..8).unwrap_or(backup).to_owned(),
            names,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_inside_another_is_not_named_twice_and_no_character_is_a_wildcard() {
        let paths: Vec<PoolPath> = ["a/b", "a", "ab", "a/b/c", "x[1]*?\\"]
            .iter()
            .map(|path| path.parse().unwrap())
            .collect();
        assert_eq!(
            Selection::of(&paths).includes(),
            [
                "--include",
                "/a",
                "--include",
                "/ab",
                "--include",
                "/x\\[1]\\*\\?\\\\"
            ]
        );
    }
}
