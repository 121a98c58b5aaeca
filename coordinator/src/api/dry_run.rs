//! What a request would do to its pool, asked of the pool's owner: nothing changes, no lease is taken, and no
//! operation is waited for.

use futures_util::{StreamExt as _, stream};
use hostler_common::id::PoolName;
use hostler_common::rpc::hostler::agent::v1::{DryRunAnswer, ask, ask_answer};
use hostler_common::rpc::operations::v1::OperationState;
use tonic::Status;

use super::pool::{self, OnPool};
use super::progress::{Said, Talk, only};
use crate::operation::sentences;
use crate::registry::Registry;
use crate::session::asks::{AskError, Asks};

/// Lines of one dry run: more than a pool has devices.
const LINES_AT_MOST: usize = 1024;

/// A line for each step that would be done, then what they would come to.
///
/// # Errors
/// INVALID_ARGUMENT when the request makes no sense.
pub(super) fn talk<M: OnPool>(registry: &Registry, asks: Asks, message: &M) -> Result<Talk, Status> {
    let wanted = match pool::wanted(registry, message)? {
        Ok(wanted) => wanted,
        Err(no_pool) => return Ok(only(OperationState::Failed, no_pool.to_string())),
    };
    let question = ask::Question::DryRun(wanted.asked.received().clone());
    let said = async move {
        let (host, pool) = (wanted.host, PoolName::from(&wanted.resource));
        let error = match asks.ask(&host, &pool, question).await {
            Ok(ask_answer::Answer::DryRun(answer)) => return tell(&answer),
            Ok(ask_answer::Answer::Refused(_) | ask_answer::Answer::ListBackups(_)) => {
                AskError::Unfit { host }
            }
            Err(error) => error,
        };
        vec![Said::new(OperationState::Failed, error.to_string())]
    };
    Ok(Box::pin(
        stream::once(said).flat_map(|said| stream::iter(said.into_iter().map(Ok))),
    ))
}

fn tell(answer: &DryRunAnswer) -> Vec<Said> {
    let active = |line: String| Said::new(OperationState::Active, line);
    let more = answer.lines.len().saturating_sub(LINES_AT_MOST);
    let lines = answer.lines.iter().take(LINES_AT_MOST);
    let mut said: Vec<_> = lines
        .filter(|line| !line.is_empty())
        .map(|line| active(sentences::line(line)))
        .collect();
    if more > 0 {
        said.push(active(format!("and {more} more lines")));
    }
    let outcome = match answer.outcome.trim() {
        "" => "would do nothing".to_owned(),
        outcome => outcome.to_owned(),
    };
    said.push(Said::new(OperationState::Completed, sentences::line(&outcome)));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_is_told_line_by_line_and_ends_with_what_would_be() {
        let told = tell(&DryRunAnswer {
            lines: vec!["add /dev/sdc".into(), String::new(), "grow\u{1b}[1m".into()],
            outcome: "would grow default by 4.00 GiB".into(),
            size_change_bytes: 1 << 32,
        });
        assert_eq!(
            told,
            [
                Said::new(OperationState::Active, "add /dev/sdc"),
                Said::new(OperationState::Active, "grow[1m"),
                Said::new(OperationState::Completed, "would grow default by 4.00 GiB"),
            ]
        );
        let many = tell(&DryRunAnswer {
            lines: vec!["x".into(); LINES_AT_MOST + 5],
            outcome: "3 backups stay".into(),
            ..Default::default()
        });
        assert_eq!(many.len(), LINES_AT_MOST + 2);
        assert_eq!(many[LINES_AT_MOST].msg, "and 5 more lines");
        assert_eq!(
            many.last().unwrap().msg,
            "3 backups stay",
            "in the owner's own words"
        );
        assert_eq!(tell(&DryRunAnswer::default()).len(), 1, "always a last word");
    }
}
