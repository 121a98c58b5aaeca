//! Several operations as one stream. Existing clients stop at any FAILED and take every id for failed, so
//! trouble with one is an ACTIVE message, and FAILED comes once, last (wire.md, point 3).

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use hostler_common::id::HypervisorId;
use hostler_common::operation::OperationKind;
use hostler_common::rpc::operations::v1::OperationState;
use tonic::Status;

use super::progress::{Said, Talk};

/// Hypervisors named in one summary; more are counted.
const NAMED_AT_MOST: usize = 5;

/// The talks of each hypervisor, merged.
pub(super) fn merge(kind: OperationKind, talks: Vec<(HypervisorId, Talk)>) -> Talk {
    let total = talks.len();
    let names = summary(talks.iter().map(|(id, _)| id.to_string()));
    let opening = Said::new(
        OperationState::Scheduled,
        format!("{} {total} hypervisors: {names}", kind.verb()),
    );
    let merged = stream::select_all(talks.into_iter().map(|(id, talk)| {
        Box::pin(talk.map(move |said| (id.clone(), said)))
            as Pin<Box<dyn Stream<Item = (HypervisorId, Result<Said, Status>)> + Send>>
    }));
    let state = Merging {
        kind,
        total,
        ended: 0,
        begun: false,
        failed: BTreeMap::new(),
    };
    let rest = stream::unfold(Some((merged, state)), |state| async move {
        let (mut merged, mut state) = state?;
        match merged.next().await {
            // The others go on, so this one has failed.
            Some((id, Err(status))) => {
                let said = Said::new(OperationState::Failed, status.message());
                Some((Ok::<Said, Status>(state.take(&id, said)), Some((merged, state))))
            }
            Some((id, Ok(said))) => Some((Ok(state.take(&id, said)), Some((merged, state)))),
            None => Some((Ok(state.end()), None)),
        }
    });
    Box::pin(stream::once(std::future::ready(Ok(opening))).chain(rest))
}

struct Merging {
    kind: OperationKind,
    total: usize,
    ended: usize,
    begun: bool,
    failed: BTreeMap<HypervisorId, String>,
}

impl Merging {
    fn take(&mut self, id: &HypervisorId, said: Said) -> Said {
        let msg = match said.state {
            OperationState::Failed => {
                self.ended += 1;
                self.failed.insert(id.clone(), said.msg.clone());
                format!(
                    "{id}: failed: {} ({} of {} ended)",
                    said.msg, self.ended, self.total
                )
            }
            OperationState::Completed => {
                self.ended += 1;
                format!(
                    "{id}: done: {} ({} of {} ended)",
                    said.msg, self.ended, self.total
                )
            }
            _ => format!("{id}: {}", said.msg),
        };
        self.begun |= said.state != OperationState::Scheduled;
        let state = if self.begun {
            OperationState::Active
        } else {
            OperationState::Scheduled
        };
        Said::new(state, msg)
    }

    fn end(&self) -> Said {
        let (verb, total) = (self.kind.verb(), self.total);
        if self.failed.is_empty() {
            return Said::new(
                OperationState::Completed,
                format!("{verb}: all {total} hypervisors done"),
            );
        }
        let failures = self.failed.iter().map(|(id, why)| format!("{id}: {why}"));
        let count = self.failed.len();
        Said::new(
            OperationState::Failed,
            format!("{verb}: {count} of {total} failed: {}", summary(failures)),
        )
    }
}

fn summary(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    let shown = items
        .iter()
        .take(NAMED_AT_MOST)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match items.len().checked_sub(NAMED_AT_MOST) {
        None | Some(0) => shown,
        Some(more) => format!("{shown}, and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(id: &str, said: &[(OperationState, &str)]) -> (HypervisorId, Talk) {
        let said: Vec<_> = said
            .iter()
            .map(|(state, msg)| Ok(Said::new(*state, *msg)))
            .collect();
        (id.parse().unwrap(), Box::pin(stream::iter(said)))
    }

    async fn all(talks: Vec<(HypervisorId, Talk)>) -> Vec<Said> {
        merge(OperationKind::CreateHypervisor, talks)
            .map(Result::unwrap)
            .collect()
            .await
    }

    #[tokio::test]
    async fn failed_comes_once_and_last_and_names_who() {
        use OperationState::{Active, Completed, Failed, Scheduled};
        let talks = vec![
            talk(
                "a",
                &[
                    (Scheduled, "queued"),
                    (Active, "working"),
                    (Completed, "in service"),
                ],
            ),
            talk("b", &[(Scheduled, "queued"), (Failed, "no disk")]),
        ];
        let said = all(talks).await;
        let (last, before) = said.split_last().unwrap();
        assert!(before.iter().all(|said| !said.is_end()), "{said:?}");
        assert_eq!(last.state, Failed);
        assert_eq!(last.msg, "create: 1 of 2 failed: b: no disk");
        assert_eq!(before[0].state, Scheduled);
        assert!(said.iter().all(|said| !said.msg.is_empty()));
    }

    #[tokio::test]
    async fn all_done_is_completed_and_a_thousand_failures_stay_readable() {
        use OperationState::{Completed, Failed};
        let said = all(vec![
            talk("a", &[(Completed, "x")]),
            talk("b", &[(Completed, "x")]),
        ])
        .await;
        assert_eq!(said.last().unwrap().state, Completed);
        let many = (0..1000)
            .map(|n| talk(&format!("hv{n}"), &[(Failed, "not enrolled")]))
            .collect();
        let last = all(many).await.pop().unwrap();
        assert!(
            last.msg.contains("1000 of 1000 failed") && last.msg.ends_with("and 995 more"),
            "{}",
            last.msg
        );
    }
}
