//! How records become values and back: JSON, so that a person can read the store with `sqlite3`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Entry, StoreError, Write};

/// Room for most records, in bytes: it is not to grow while it is written.
const RECORD: usize = 1024;

/// Why a record cannot be had.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The value is of another version, or damaged.
    #[error("the stored {key} cannot be read by this version")]
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The record of an entry.
///
/// # Errors
/// When a later version wrote it, or it is damaged.
pub fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, RecordError> {
    read_value(&entry.key, &entry.value)
}

/// The record of a value.
///
/// # Errors
/// When a later version wrote it, or it is damaged.
pub fn read_value<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(value).map_err(|source| RecordError::Unreadable {
        key: key.to_owned(),
        source,
    })
}

/// The write that stores a record.
pub fn put<T: Serialize>(key: String, record: &T) -> Write {
    let mut value = Vec::with_capacity(RECORD);
    // Our records hold only strings, numbers, lists and string-keyed maps, which always serialise.
    serde_json::to_writer(&mut value, record).expect("records serialise");
    Write::Put { key, value }
}
