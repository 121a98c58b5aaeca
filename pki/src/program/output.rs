//! The only place that prints.
//!
//! It never decides what to say. The invariant: nothing that a certificate holds reaches the terminal as a
//! control character.

use std::io::Write;

/// A line for the reader. A reader who has gone (`| head`) is no error.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", printable(text));
}

/// A line about trouble.
pub(super) fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let hidden = c.is_control() && c != '\n';
            let escaped = hidden.then(|| c.escape_default());
            let plain = (!hidden).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_character_is_shown_and_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{9b}é"), "a\\u{1b}[2Jb\nc\\u{9b}é");
    }
}
