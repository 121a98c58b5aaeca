//! How an error reaches a person: one line with its whole chain of causes. However much of foreign text a cause repeats,
//! the line stays one that can be read and stored.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};

/// What one cause may take, in bytes. The longest sentence of ours that names a path of 4096 bytes is cut.
const LINK_AT_MOST: usize = 2000;

/// What a sentence may repeat of foreign text, in bytes.
const EXCERPT_AT_MOST: usize = 1000;

/// The beginning of foreign text, for a sentence; an ellipsis says that there is more.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    match text.len() <= EXCERPT_AT_MOST {
        true => text.into(),
        false => format!("{}…", &text[..text.floor_char_boundary(EXCERPT_AT_MOST)]).into(),
    }
}

/// Prints an error and its sources as `a: b: c`. No error's own Display repeats its source.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = self.0;
        loop {
            let mut link = Link {
                out: f,
                left: LINK_AT_MOST,
            };
            write!(link, "{error}")?;
            let Some(source) = error.source() else {
                return Ok(());
            };
            f.write_str(": ")?;
            error = source;
        }
    }
}

/// Writes a cause as far as it has room, then an ellipsis and nothing more.
struct Link<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl fmt::Write for Link<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.left == 0 {
            return Ok(());
        }
        if text.len() <= self.left {
            self.left -= text.len();
            return self.out.write_str(text);
        }
        let fits = &text[..text.floor_char_boundary(self.left)];
        self.left = 0;
        self.out.write_str(fits)?;
        self.out.write_char('…')
    }
}

/// What the engine may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Only another request cures it.
    Never,
    /// It did not happen. Try again after a while.
    Later,
    /// It may have happened. Look before you try again.
    ReadBack,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Cause(String, Option<Box<Cause>>);

    impl fmt::Display for Cause {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "cause {}", self.0)
        }
    }

    impl Error for Cause {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn a_chain_is_one_line_and_a_cause_that_repeats_a_megabyte_is_cut() {
        let chain = |first: &str, second: &str| {
            let second = Cause(second.to_owned(), None);
            Chain(&Cause(first.to_owned(), Some(Box::new(second)))).to_string()
        };
        assert_eq!(chain("one", "two"), "cause one: cause two");
        let cut = chain(&"é".repeat(1 << 20), "two");
        assert!(cut.ends_with("é…: cause two"), "{}", &cut[cut.len() - 40..]);
        assert!(cut.len() < LINK_AT_MOST + 30, "{}", cut.len());
    }

    #[test]
    fn an_excerpt_is_short_and_whole_text_stays_as_it_is() {
        assert_eq!(excerpt("short"), "short");
        let long = excerpt(&"é".repeat(1 << 20)).into_owned();
        assert!(long.len() <= EXCERPT_AT_MOST + '…'.len_utf8() && long.ends_with("é…"));
    }
}
