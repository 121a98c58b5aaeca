//! `hostler backups delete`: asks the person first, since it cannot be undone.

use clap::Args;
use hostler_common::operation::BackupId;
use hostler_common::rpc::hostler::fleet::v1::DeleteBackupRequest;

use crate::command::Context;
use crate::command::asking::{Asking, OfPool};
use crate::command::confirming::{ask, somebody_is_there};
use crate::command::follow::Asked;
use crate::failure::Failure;
use crate::output::pools;
use crate::output::text::escape;

/// Deletes a backup
#[derive(Debug, Args)]
#[command(
    long_about = "\
Deletes a backup from the repository of a storage pool, and the data that no other backup needs. It does not come back, and \
cannot be stopped once it runs. The last backup is never deleted.

On a terminal it shows the backup and asks first. Without one it needs --yes. --dry-run says what would be done.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler backups list
  hostler backups delete 3f2a9c1e --dry-run
  hostler backups delete 3f2a9c1e --reason \"holds a secret\"
  hostler backups delete 3f2a9c1e --pool archive --yes"
)]
pub(crate) struct Delete {
    /// The backup: its id or the beginning of it
    id: BackupId,
    #[command(flatten)]
    pool: OfPool,
    /// Only say what would be done
    #[arg(long, conflicts_with_all = ["reason", "detach", "yes"])]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Delete {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut request = DeleteBackupRequest {
            pool: self.pool.name(),
            id: self.id.to_string(),
            dry_run: self.dry_run,
        };
        Asked::DeleteBackup(request.clone()).check()?;
        if !self.dry_run && !self.yes {
            // Exactly what was shown, even if another backup with such an id is made meanwhile.
            request.id = self.confirm(context).await?;
        }
        self.asking.run(Asked::DeleteBackup(request), context).await
    }

    /// Shows the backup and asks. Its whole id.
    async fn confirm(&self, context: &Context) -> Result<String, Failure> {
        if !somebody_is_there() {
            return Err(Failure::NobodyToAsk);
        }
        let (pool, backups) = super::backups(self.pool.name(), context).await?;
        let beginning = self.id.to_string();
        let mut found: Vec<_> = backups
            .iter()
            .filter(|it| it.id.starts_with(&beginning))
            .collect();
        let (Some(backup), true) = (found.pop(), found.is_empty()) else {
            return Err(Failure::WhichBackup {
                id: self.id.clone(),
                pool,
                found: backups.iter().filter(|it| it.id.starts_with(&beginning)).count(),
            });
        };
        let question = format!(
            "Delete backup {} of pool {}? It does not come back. [y/N] ",
            pools::backup(backup),
            escape(&pool)
        );
        match is_yes(&ask(&question).await?) {
            true => Ok(backup.id.clone()),
            false => Err(Failure::NotConfirmed),
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        assert!(is_yes("y\n") && is_yes("YES\r\n"));
        for no in ["", "\n", "n\n", "yy\n", "no, yes\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
