//! How much of an agent's words goes on to clients: cleaned of control characters, and bounded far above what a pool or
//! a repository makes an agent say.

use std::mem::{Discriminant, discriminant};

use hostler_common::rpc::hostler::agent::v1::ask::Question;
use hostler_common::rpc::hostler::agent::v1::ask_answer::Answer;
use hostler_common::rpc::hostler::agent::v1::{Backup, ListBackupsQuestion, Measure};

use crate::operation::sentences;

/// Steps that a dry run names: one a device, and a pool has at most 1024.
const LINES_AT_MOST: usize = 1100;

/// Backups of one pool that are listed, the newest: with their texts at the bounds below they stay within the 4 MiB
/// that gRPC clients take.
const BACKUPS_AT_MOST: usize = 4096;

/// Tags of one backup.
const TAGS_AT_MOST: usize = 8;

/// An id, a tag or the name of a host, in bytes.
const NAME_AT_MOST: usize = 64;

/// What is being done, in bytes.
const WHAT_AT_MOST: usize = 256;

/// Whether `answer` is of the kind that a question asks for. A refusal answers every question.
pub(super) fn fits(question: Discriminant<Question>, answer: &Answer) -> bool {
    let wants = match answer {
        Answer::Refused(_) => return true,
        Answer::DryRun(_) => Question::DryRun(prost_types::Any::default()),
        Answer::ListBackups(_) => Question::ListBackups(ListBackupsQuestion {}),
    };
    discriminant(&wants) == question
}

/// The answer within the bounds.
pub(super) fn bounded(answer: Answer) -> Answer {
    match answer {
        Answer::Refused(reason) => Answer::Refused(match sentences::line(&reason) {
            clean if clean.trim().is_empty() => "the agent refused without a word".to_owned(),
            clean => clean,
        }),
        Answer::DryRun(mut dry_run) => {
            dry_run.lines.truncate(LINES_AT_MOST);
            for line in &mut dry_run.lines {
                *line = sentences::line(line);
            }
            dry_run.outcome = sentences::line(&dry_run.outcome);
            Answer::DryRun(dry_run)
        }
        Answer::ListBackups(mut list) => {
            // Oldest first: the newest stay.
            let superfluous = list.backups.len().saturating_sub(BACKUPS_AT_MOST);
            list.backups.drain(..superfluous);
            for backup in &mut list.backups {
                bound_backup(backup);
            }
            Answer::ListBackups(list)
        }
    }
}

fn bound_backup(backup: &mut Backup) {
    backup.tags.truncate(TAGS_AT_MOST);
    let names = [&mut backup.id, &mut backup.host, &mut backup.operation_id];
    for text in names.into_iter().chain(&mut backup.tags) {
        *text = sentences::bounded(text, NAME_AT_MOST);
    }
}

/// The measure within the bounds.
pub(super) fn bounded_measure(measure: Measure) -> Measure {
    Measure {
        what: sentences::bounded(&measure.what, WHAT_AT_MOST),
        ..measure
    }
}

#[cfg(test)]
mod tests {
    use hostler_common::rpc::hostler::agent::v1::{DryRunAnswer, ListBackupsAnswer};
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_answer_at_its_bounds_fits_into_one_message() {
        let text = || "\u{1b}x".repeat(200);
        let backup = |time_unix_ms| Backup {
            id: text(),
            time_unix_ms,
            host: text(),
            operation_id: text(),
            files: u64::MAX,
            bytes: u64::MAX,
            tags: vec![text(); 20],
        };
        let backups = (1..=BACKUPS_AT_MOST as i64 + 7).map(backup).collect();
        let Answer::ListBackups(list) = bounded(Answer::ListBackups(ListBackupsAnswer { backups })) else {
            panic!()
        };
        assert!(list.encoded_len() < 4 << 20, "{} bytes", list.encoded_len());
        let newest = list.backups.last().unwrap();
        assert_eq!(newest.time_unix_ms, BACKUPS_AT_MOST as i64 + 7, "the oldest go");
        assert!(newest.id.chars().all(|c| !c.is_control()));
        let lines = vec!["x".repeat(4000); 2000];
        let outcome = text();
        let Answer::DryRun(dry_run) = bounded(Answer::DryRun(DryRunAnswer {
            lines,
            outcome,
            size_change_bytes: 1,
        })) else {
            panic!()
        };
        assert!(dry_run.encoded_len() < 4 << 20);
        let silent = bounded(Answer::Refused("\n".into()));
        assert_eq!(silent, Answer::Refused("the agent refused without a word".into()));
    }
}
