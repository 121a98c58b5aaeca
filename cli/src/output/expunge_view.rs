//! What was expunged, as `--output json` prints it. Field names are stable, since programs read them.

use serde::Serialize;

/// The document of what was expunged.
#[derive(Debug, Serialize)]
pub(crate) struct Expunged<'a> {
    pub(crate) expunged: &'a str,
}
