//! The pool's backups, as they are listed: the newest of them, as many as fit into one message.
//!
//! The repository may be shared, and others may tag as they like: no text is passed on beyond its bound.

use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::Backup;
use prost::Message as _;

use super::Inner;
use super::count::Count;
use super::restic::messages::Snapshot;
use super::restic::repository::Ear;

/// What one answer may take, in bytes: a session is ended by a message of more than 4 MiB.
const ANSWER_AT_MOST: usize = 3 << 20;
/// Tags of one backup; a backup of ours has five.
const TAGS_AT_MOST: usize = 8;
/// Characters of one text. An id has 64.
const TEXT_AT_MOST: usize = 64;

pub(super) fn list(inner: &Inner) -> Result<Vec<Backup>, String> {
    let backups = inner
        .all_backups(&Ear::none())
        .map_err(|fault| Chain(&fault).to_string())?;
    Ok(newest(backups.into_iter().map(listed).collect()))
}

/// The newest of `backups`, which are oldest first, as many as one answer holds.
pub(super) fn newest(mut backups: Vec<Backup>) -> Vec<Backup> {
    let mut room = ANSWER_AT_MOST;
    let fit = backups.iter().rev().take_while(|backup| {
        // Its tag and its length in the answer take at most eight bytes more.
        let left = room.checked_sub(backup.encoded_len() + 8);
        room = left.unwrap_or_default();
        left.is_some()
    });
    let beyond = backups.len() - fit.count();
    backups.split_off(beyond)
}

pub(super) fn listed(backup: Snapshot) -> Backup {
    let count = Count::of(&backup).unwrap_or_default();
    let bounded = |text: &str| text.chars().take(TEXT_AT_MOST).collect();
    Backup {
        time_unix_ms: backup.unix_ms(),
        operation_id: bounded(backup.tag("operation:").unwrap_or_default()),
        files: count.files,
        bytes: count.bytes,
        host: bounded(&backup.hostname),
        tags: backup
            .tags
            .iter()
            .flatten()
            .take(TAGS_AT_MOST)
            .map(|tag| bounded(tag))
            .collect(),
        id: bounded(&backup.id),
    }
}

#[cfg(test)]
mod tests {
    use hostler_common::rpc::hostler::agent::v1::ListBackupsAnswer;

    use super::*;

    #[test]
    fn the_newest_backups_of_a_huge_repository_fit_into_one_message() {
        let backup = |number: i64| {
            let text = || "é".repeat(500);
            let mut backup = listed(Snapshot {
                id: text(),
                time: String::new(),
                hostname: text(),
                tags: Some(vec![text(); 100]),
            });
            backup.time_unix_ms = number;
            backup
        };
        let backups = newest((0..20_000).map(backup).collect());
        assert_eq!(backups.last().unwrap().time_unix_ms, 19_999, "the oldest go");
        assert!(backups.len() > 1000);
        let answer = ListBackupsAnswer { backups };
        assert!(answer.encoded_len() <= ANSWER_AT_MOST, "{}", answer.encoded_len());
        assert_eq!(newest(vec![backup(1), backup(2)]).len(), 2);
    }
}
