//! Keys, values, revisions and watches, after the model of etcd. Nothing here knows what a value means.
//!
//! Invariant: an answer to [`Store::commit`] is given only after the transaction is durable, and events
//! are published after that, in the order of their revisions.

mod handle;
pub mod json;
pub mod memory;
mod sqlite;
mod watch;

use std::path::PathBuf;

use thiserror::Error;

pub use self::handle::Store;
pub use self::sqlite::Accepting;
pub use self::watch::{Lagged, Watch};

/// Counts commits. Every key remembers the revision that wrote it last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As `/hypervisors/hv1`.
    pub key: String,
    /// Opaque here.
    pub value: Vec<u8>,
    /// The revision that wrote it last.
    pub modified: Revision,
}

/// What must still be true when a transaction commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// The revision that wrote it last; zero when the key must be absent.
    pub modified: Revision,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a key; nothing happens when it is absent.
    Delete {
        /// The key.
        key: String,
    },
}

impl Write {
    /// The key that it changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// All of it happens, or none.
#[derive(Debug, Default, Clone)]
pub struct Transaction {
    /// When one of them does not hold, nothing happens.
    pub compares: Vec<Compare>,
    /// Applied in order.
    pub writes: Vec<Write>,
}

impl Transaction {
    /// Whether it asks for nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.compares.is_empty() && self.writes.is_empty()
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is durable, at this revision.
    At(Revision),
    /// A compare did not hold. Read again and decide again.
    Conflict,
}

/// One transaction that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its revision.
    pub revision: Revision,
    /// What it changed, in order.
    pub writes: Vec<Write>,
}

/// A part of the keys under a prefix.
#[derive(Debug, Clone)]
pub struct Range {
    /// What every key begins with.
    pub prefix: String,
    /// Only keys beyond this one, in the direction of the listing.
    pub beyond: Option<String>,
    /// At most this many.
    pub at_most: usize,
    /// The order of the keys.
    pub order: Order,
}

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Why the store did not do it. What failed did not happen, but for [`StoreError::Closed`]: then it may have.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is somebody else's, and this process is root.
    #[error(
        "the data directory {} belongs to user {owner}, who could not use what root leaves there: run this as that user, as with `runuser -u hostler -- hostler-coordinator …`",
        path.display()
    )]
    NotRoots {
        /// The directory.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
    /// Another process has it open.
    #[error("the store {} is in use by another coordinator; stop it first", path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// It was written by a later version.
    #[error(
        "the store {} has format {found}; this version reads formats up to {known}: install the newer version again",
        path.display()
    )]
    TooNew {
        /// The store's file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// It is damaged.
    #[error("the store {} is damaged ({problem}); restore it from a backup", path.display())]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What SQLite's check says.
        problem: String,
    },
    /// It is not there, and it was.
    #[error(
        "the store {} is gone, though it was at revision {}: mount its disk, or restore it from a backup; `hostler-coordinator --accept-loss` begins with an empty one",
        path.display(),
        newest.0
    )]
    Gone {
        /// The store's file.
        path: PathBuf,
        /// The newest revision that was acknowledged.
        newest: Revision,
    },
    /// It was there when it was opened.
    #[error(
        "{} was removed or replaced while the store was open: move the file back, or stop the coordinator and restore it from a backup",
        path.display()
    )]
    Moved {
        /// The store's file, or its log.
        path: PathBuf,
    },
    /// It lost its last commits.
    #[error(
        "the store {} is at revision {}, though revision {} was acknowledged: put the newest copy back; `hostler-coordinator --accept-loss` goes on without what is lost",
        path.display(),
        found.0,
        newest.0
    )]
    Older {
        /// The store's file.
        path: PathBuf,
        /// Its revision.
        found: Revision,
        /// The newest revision that was acknowledged.
        newest: Revision,
    },
    /// It may be a copy of long ago.
    #[error(
        "the store {} is at revision {}, and nothing beside it tells whether that is the newest; when it was restored, or is, `hostler-coordinator --accept-loss` takes it as it is",
        path.display(),
        found.0
    )]
    Unwitnessed {
        /// The store's file.
        path: PathBuf,
        /// Its revision.
        found: Revision,
    },
    /// What tells whether it is the newest is not what was written.
    #[error(
        "{} is damaged, which tells whether the store beside it is the newest; when that is so, `hostler-coordinator --accept-loss` writes it anew",
        path.display()
    )]
    WitnessDamaged {
        /// The file beside the store.
        path: PathBuf,
    },
    /// What tells whether it is the newest cannot be read or made.
    #[error("cannot use {}, which tells whether the store beside it is the newest", path.display())]
    Witness {
        /// The file beside the store.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A copy of it cannot be made.
    #[error("cannot write the copy {}", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite failed, as on a full disk: for a commit, all transactions of its group failed.
    #[error("the store {} cannot {action}: {problem}", path.display())]
    Sqlite {
        /// The store's file.
        path: PathBuf,
        /// What was tried, as "commit".
        action: &'static str,
        /// Why, in SQLite's words and with the way out where there is one.
        problem: String,
    },
    /// The engine in memory was told to fail.
    #[error("the store in memory cannot {action}: {problem}")]
    Memory {
        /// What was tried, as "commit".
        action: &'static str,
        /// Why, as it was told.
        problem: String,
    },
    /// The process is ending, or a thread of the store has died, which ends the process.
    #[error("the store is closed: the coordinator is ending; look before you repeat it")]
    Closed,
}
