//! What people read about operations, in one place. Lines are bounded here, so that a way out that is appended
//! is never cut off.

use hostler_common::id::{OperationId, ResourceName};

use super::record::OperationRecord;
use super::state::End;

/// The longest line that is stored, in bytes, without what [`ending`] appends.
const LINE_AT_MOST: usize = 2048;

/// Why nothing runs on a resource that needs attention, and the way out.
pub fn attention(resource: &ResourceName, id: OperationId) -> String {
    format!(
        "{resource} needs attention since operation {id}: see `hostler operations show {id}`, look at the host, then `hostler operations resolve {id} --note …`"
    )
}

/// The last line of an operation.
pub fn ending(record: &OperationRecord, said: &str) -> String {
    let said = line(said);
    match record.end() {
        Some(End::NeedsAttention) => format!("{said}; {}", attention(&record.resource, record.id)),
        Some(End::Completed | End::Failed) | None => said,
    }
}

/// What a peer said, without control characters and bounded.
pub fn line(said: &str) -> String {
    bounded(said, LINE_AT_MOST)
}

/// The text without control characters, at most `at_most` bytes and then an ellipsis.
pub fn bounded(text: &str, at_most: usize) -> String {
    let mut clean: String = text.chars().filter(|c| !c.is_control()).collect();
    if clean.len() > at_most {
        let cut = (0..=at_most)
            .rev()
            .find(|at| clean.is_char_boundary(*at))
            .unwrap_or(0);
        clean.truncate(cut);
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_bounded_and_cannot_paint_a_terminal() {
        assert_eq!(bounded("a\u{1b}[31mb\n", 100), "a[31mb");
        assert_eq!(bounded("ééé", 3), "é…");
        assert_eq!(line(&"x".repeat(1 << 20)).len(), LINE_AT_MOST + '…'.len_utf8());
    }
}
