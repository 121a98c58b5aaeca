//! Small pieces of text for people. Whatever came from the network passes [`escape`] before it reaches a
//! terminal: a host must not be able to move its administrator's cursor.

use std::fmt::Write as _;

/// Escapes what a terminal would act on: control characters, and those that reorder text.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The same for JSON, which already escapes the control characters below U+0020.
pub(crate) fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // Line feeds and spaces lie between the values; within strings they are escaped already.
        if c != '\n' && acts(c) {
            // All of them are below U+10000: one escape each.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Memory for people, from MB (2^20 bytes).
pub(crate) fn memory(mb: u64) -> String {
    if mb < 1024 {
        return format!("{mb} MiB");
    }
    // Tenths in whole numbers, so that the same memory always prints the same.
    let tenths = (u128::from(mb) * 10 + 512) / 1024;
    match tenths % 10 {
        0 => format!("{} GiB", tenths / 10),
        tenth => format!("{}.{tenth} GiB", tenths / 10),
    }
}

/// Who asked, short: `operator/alice` of `spiffe://example.org/client/operator/alice`.
pub(crate) fn requester(uri: &str) -> String {
    let path = uri
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .map(|(_, path)| path);
    let short = path.map(|path| path.strip_prefix("client/").unwrap_or(path));
    escape(short.unwrap_or(uri))
}

/// An operation's kind in a word or two: `create` of `create_hypervisor`.
pub(crate) fn verb(kind: &str) -> String {
    match kind {
        "create_backup" => "back up".into(),
        "verify_backup" => "verify".into(),
        "restore_backup" => "restore".into(),
        "delete_backup" => "delete backup".into(),
        "propose_operation" => "hold".into(),
        kind => {
            let subjects = ["_hypervisor", "_storage"];
            let verb = subjects.iter().find_map(|subject| kind.strip_suffix(subject));
            escape(verb.unwrap_or(kind))
        }
    }
}

/// A dash where there is nothing.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// `create_hypervisor` of `CreateHypervisor`.
pub(crate) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// None for what a message leaves empty.
pub(super) fn unless_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use hostler_common::operation::{OperationKind, Purpose};

    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(
            escape("boot\x1b[2J\r\n\u{9b}31m\u{202e}é✓"),
            "boot\\u{1b}[2J\\r\\n\\u{9b}31m\\u{202e}é✓"
        );
        let json = serde_json::to_string("a\u{9b}b\x1b\u{202e}é").unwrap();
        assert_eq!(escape_json(&json), r#""a\u009bb\u001b\u202eé""#);
        let back: String = serde_json::from_str(&escape_json(&json)).unwrap();
        assert_eq!(back, "a\u{9b}b\x1b\u{202e}é", "the value itself is unchanged");
    }

    #[test]
    fn memory_reads_as_people_say_it() {
        for (mb, text) in [
            (0, "0 MiB"),
            (256, "256 MiB"),
            (1024, "1 GiB"),
            (1536, "1.5 GiB"),
            (15_991, "15.6 GiB"),
            (1_048_576, "1024 GiB"),
        ] {
            assert_eq!(memory(mb), text);
        }
        assert!(memory(u64::MAX).ends_with("GiB"));
    }

    #[test]
    fn a_requester_is_shortened_to_role_and_name() {
        assert_eq!(
            requester("spiffe://example.org/client/operator/alice"),
            "operator/alice"
        );
        assert_eq!(requester("spiffe://example.org/agent/hv1"), "agent/hv1");
        assert_eq!(requester("someone"), "someone");
    }

    #[test]
    fn kinds_turn_into_snake_case() {
        assert_eq!(snake_case("CreateHypervisor"), "create_hypervisor");
        assert_eq!(verb("create_hypervisor"), "create");
        assert_eq!(verb("expand_storage"), "expand");
        assert_eq!(verb("of_a_later_version"), "of_a_later_version");
        let kinds = OperationKind::ALL.map(Purpose::Work);
        for kind in kinds.into_iter().chain([Purpose::HOLD]) {
            let verb = verb(&snake_case(kind.name()));
            assert!(!verb.contains('_'), "{verb}");
        }
    }
}
