//! Where the token comes from: the command line, a file, or standard input, which neither the list of processes nor the shell's
//! history shows. The invariant: no error holds what was read.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};

use hostler_pki::token::MAX_TOKEN_LEN;
use hostler_pki::{EnrolToken, TokenError};
use thiserror::Error;
use zeroize::Zeroizing;

/// A token and the space that an editor leaves around it.
const MOST: u64 = MAX_TOKEN_LEN as u64 + 256;

/// Where it comes from.
#[derive(Clone)]
pub enum TokenFrom {
    /// It was typed.
    Word(Zeroizing<String>),
    /// It is in a file; `-` is standard input.
    File(PathBuf),
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenReadError {
    /// The file cannot be read.
    #[error("cannot read the token from {}", name(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing is there.
    #[error("{} holds no token; hostler tokens create prints one", name(path))]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// It is none, or has a typo.
    #[error("nothing was sent")]
    Token {
        /// What is wrong with it.
        #[from]
        source: TokenError,
    },
}

fn name(path: &Path) -> Cow<'_, str> {
    match path.as_os_str() == "-" {
        true => "standard input".into(),
        false => path.to_string_lossy(),
    }
}

/// Reads the token and checks its form.
///
/// # Errors
/// When there is none, or it has a typo.
pub fn read(from: &TokenFrom) -> Result<EnrolToken, TokenReadError> {
    let path = match from {
        TokenFrom::Word(word) => return Ok(EnrolToken::parse(word)?),
        TokenFrom::File(path) => path,
    };
    let mut text = Zeroizing::new(String::new());
    let read = match path.as_os_str() == "-" {
        // A line, so that a person who types it need not know how to end a file.
        true => io::stdin().lock().take(MOST).read_line(&mut text),
        false => File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text)),
    };
    read.map_err(|source| TokenReadError::Read {
        path: path.clone(),
        source,
    })?;
    // Editors of some systems begin a file with a mark that nobody sees.
    let word = text.trim_start_matches('\u{feff}').trim();
    if word.is_empty() {
        return Err(TokenReadError::Empty { path: path.clone() });
    }
    Ok(EnrolToken::parse(word)?)
}
