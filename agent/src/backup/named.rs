//! Which of a pool's backups a request means.

use hostler_common::id::PoolName;
use hostler_common::operation::BackupId;
use thiserror::Error;

use super::restic::messages::Snapshot;

/// Why a request means no backup.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum NamedFault {
    #[error("there is no backup of pool {pool} yet; `hostler backups create` makes one")]
    None { pool: PoolName },
    #[error(
        "pool {pool} has no backup {id}; `hostler backups list` shows those it has, and others in the same repository are not touched"
    )]
    Unknown { pool: PoolName, id: String },
    #[error("{id} is the beginning of {count} backups of pool {pool}; give more of it")]
    Ambiguous {
        pool: PoolName,
        id: String,
        count: usize,
    },
}

/// Finds it among the pool's `backups`, which are sorted by age, oldest first.
pub(super) fn find<'b>(
    backups: &'b [Snapshot],
    id: &BackupId,
    pool: &PoolName,
) -> Result<&'b Snapshot, NamedFault> {
    let pool = pool.clone();
    match id {
        BackupId::Latest => backups.last().ok_or(NamedFault::None { pool }),
        BackupId::Id(id) => {
            let mut found = backups.iter().filter(|backup| backup.id.starts_with(id));
            match (found.next(), found.count()) {
                (Some(backup), 0) => Ok(backup),
                (None, _) => Err(NamedFault::Unknown { pool, id: id.clone() }),
                (Some(_), more) => Err(NamedFault::Ambiguous {
                    pool,
                    id: id.clone(),
                    count: more + 1,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_enough_when_it_is_the_only_one() {
        let backup = |id: &str| Snapshot {
            id: id.to_owned(),
            time: String::new(),
            hostname: String::new(),
            tags: None,
        };
        let backups = [backup("aaaa11"), backup("aaaa22"), backup("bbbb33")];
        let pool: PoolName = "default".parse().unwrap();
        let found = |id: &str| {
            let found = find(&backups, &id.parse().unwrap(), &pool);
            found
                .map(|backup| backup.id.as_str())
                .map_err(|fault| fault.to_string())
        };
        assert_eq!(found("bbbb"), Ok("bbbb33"));
        assert_eq!(found("aaaa2"), Ok("aaaa22"));
        assert_eq!(found("latest"), Ok("bbbb33"));
        assert!(found("aaaa").unwrap_err().contains("2 backups"));
        assert!(found("cccc").unwrap_err().contains("no backup cccc"));
        assert!(
            find(&[], &BackupId::Latest, &pool)
                .unwrap_err()
                .to_string()
                .contains("backups create")
        );
    }
}
