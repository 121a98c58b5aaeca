//! The client's command line: words with a NUL between them, as the kernel hands them over.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// # Panics
/// When the client does.
pub fn run(data: &[u8]) {
    // The kernel refuses a longer word (execve(2), MAX_ARG_STRLEN).
    let words = data[..data.len().min(128 << 10)].split(|byte| *byte == 0);
    let mut line = vec![OsString::from("hostler")];
    line.extend(words.map(|word| OsString::from_vec(word.to_vec())));
    // What is wrong with a word is told by clap, which repeats it to whoever typed it.
    drop(hostler::fuzzing::arguments(&line));
}
