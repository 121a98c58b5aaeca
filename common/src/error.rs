//! How an error reaches a person: one line with its whole chain of causes.

use std::error::Error;
use std::fmt;

/// Prints an error and its sources as `a: b: c`. No error's own Display repeats its source.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
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
