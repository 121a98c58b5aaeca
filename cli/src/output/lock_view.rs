//! Locks that clients hold, as `--output json` prints them and as a table. Field names are stable, since programs
//! read them; times are RFC 3339 in UTC.

use comfy_table::Cell;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use serde::Serialize;

use super::Terminal;
use super::sheet::{self, Column, Rank};
use super::text::{escape, or_dash, requester};
use super::view::{OperationState, rfc3339};

/// The document of `hostler locks`.
#[derive(Debug, Serialize)]
pub(crate) struct Locks<'a> {
    pub(crate) locks: &'a [Lock],
}

/// One lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Lock {
    pub(crate) resource: String,
    pub(crate) operation_id: String,
    pub(crate) state: OperationState,
    pub(crate) held_by: String,
    pub(crate) since: Option<String>,
    /// Null once it has ended.
    pub(crate) until: Option<String>,
    pub(crate) reason: String,
    /// Whether others may end it.
    pub(crate) cancel_allowed: bool,
    /// The last word on it.
    pub(crate) message: String,
}

impl From<fleet::Operation> for Lock {
    fn from(it: fleet::Operation) -> Self {
        let lease = it.lease.unwrap_or_default();
        Self {
            state: OperationState::of_wire(it.state),
            resource: it.resource,
            operation_id: it.id,
            held_by: it.requested_by,
            since: it.requested.map(rfc3339),
            until: lease.locked_until.map(rfc3339),
            reason: it.reason,
            cancel_allowed: !lease.is_disabled_cancel,
            message: it.message,
        }
    }
}

const LOCKS: [Column; 5] = [
    ("RESOURCE", Rank::Name),
    ("HELD BY", Rank::Name),
    ("SINCE", Rank::Optional(1)),
    ("UNTIL", Rank::Whole),
    ("REASON", Rank::Text(16)),
];

/// `hostler locks`.
pub(crate) fn table(list: &[Lock], terminal: Terminal) -> String {
    if list.is_empty() {
        return "nothing is locked".into();
    }
    let row = |it: &Lock| {
        vec![
            Cell::new(escape(&it.resource)),
            Cell::new(or_dash(requester(&it.held_by))),
            Cell::new(it.since.as_deref().unwrap_or("-")),
            Cell::new(it.until.as_deref().unwrap_or("-")),
            Cell::new(or_dash(escape(&it.reason))),
        ]
    };
    sheet::draw(&LOCKS, list.iter().map(row).collect(), terminal)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const PIPE: Terminal = Terminal {
        width: None,
        colour: false,
        spinner: false,
    };

    #[test]
    fn the_json_of_locks_is_stable() {
        let locks = samples::locks();
        insta::assert_snapshot!(serde_json::to_string_pretty(&Locks { locks: &locks }).unwrap());
    }

    #[test]
    fn locks_on_terminals_keep_who_and_until_when() {
        insta::assert_snapshot!("locks", table(&samples::locks(), PIPE));
        let narrow = Terminal {
            width: Some(80),
            ..PIPE
        };
        insta::assert_snapshot!("locks_on_80_columns", table(&samples::locks(), narrow));
        assert_eq!(table(&[], PIPE), "nothing is locked");
    }
}
