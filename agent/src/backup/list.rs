//! The pool's backups, as they are listed.

use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::Backup;

use super::Inner;
use super::count::Count;
use super::restic::messages::Snapshot;
use super::restic::repository::Ear;

pub(super) fn list(inner: &Inner) -> Result<Vec<Backup>, String> {
    let backups = inner
        .backups(&Ear::none())
        .map_err(|fault| Chain(&fault).to_string())?;
    Ok(backups.into_iter().map(listed).collect())
}

fn listed(backup: Snapshot) -> Backup {
    let count = Count::of(&backup).unwrap_or_default();
    Backup {
        time_unix_ms: backup.unix_ms(),
        operation_id: backup.tag("operation:").unwrap_or_default().to_owned(),
        files: count.files,
        bytes: count.bytes,
        host: backup.hostname,
        tags: backup.tags.unwrap_or_default(),
        id: backup.id,
    }
}
