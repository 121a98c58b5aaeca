//! What every sentence must be, whatever made it necessary: short, since it is logged, stored and shown.

/// The longest sentence, in bytes. A line of an operation may have 4 KiB; a path alone may have 4096 bytes.
const LONGEST: usize = 8 * 1024;

/// Holds a sentence against the bound.
///
/// # Panics
/// When it repeats more of the input than anybody reads.
pub fn bounded(sentence: &str) {
    assert!(
        sentence.len() <= LONGEST,
        "a sentence has {} bytes: {}…",
        sentence.len(),
        sentence.chars().take(300).collect::<String>()
    );
}
