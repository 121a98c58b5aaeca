//! Pages of operations, newest first.

use hostler_common::id::{OperationId, ResourceName};
use hostler_common::rpc::hostler::fleet::v1 as fleet;

use super::record::{Include, OperationRecord, PREFIX};
use crate::registry::Registry;
use crate::store::json::{self, RecordError};
use crate::store::{Order, Range, Store};

/// Operations read from the store at once.
const READ_AT_ONCE: usize = 200;

/// Which operations are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only on this resource.
    pub resource: Option<ResourceName>,
    /// Only those that have not ended.
    pub unended: bool,
}

/// Some operations.
#[derive(Debug)]
pub struct Page {
    /// Newest first, without logs.
    pub operations: Vec<fleet::Operation>,
    /// Where the next page begins; None after the last.
    pub next: Option<OperationId>,
}

/// At most `at_most` operations that are older than `beyond`.
///
/// # Errors
/// When the store fails.
pub async fn page(
    store: &Store,
    registry: &Registry,
    filter: &Filter,
    beyond: Option<OperationId>,
    at_most: usize,
) -> Result<Page, RecordError> {
    let wanted = |record: &OperationRecord| {
        filter
            .resource
            .as_ref()
            .is_none_or(|name| *name == record.resource)
    };
    let mut summaries = Vec::new();
    if filter.unended {
        let all = registry.operations();
        let older = all
            .iter()
            .filter(|record| beyond.is_none_or(|id| record.id < id) && wanted(record));
        summaries.extend(
            older
                .take(at_most + 1)
                .map(|record| (record.id, record.to_rpc(Include::Summary))),
        );
    } else {
        let mut beyond = beyond.map(OperationRecord::key);
        // One more than asked for tells whether there is another page.
        while summaries.len() <= at_most {
            let range = Range {
                prefix: PREFIX.to_owned(),
                beyond,
                at_most: READ_AT_ONCE,
                order: Order::Descending,
            };
            let (entries, _) = store.list(range).await?;
            let Some(last) = entries.last() else { break };
            beyond = Some(last.key.clone());
            for entry in &entries {
                let record: OperationRecord = json::read(entry)?;
                if wanted(&record) {
                    summaries.push((record.id, record.to_rpc(Include::Summary)));
                }
            }
        }
    }
    let more = summaries.len() > at_most;
    summaries.truncate(at_most);
    let next = summaries.last().filter(|_| more).map(|(id, _)| *id);
    Ok(Page {
        operations: summaries.into_iter().map(|(_, summary)| summary).collect(),
        next,
    })
}
