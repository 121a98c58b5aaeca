//! Names and numbers that must not be mixed up. A value that exists is valid.
//!
//! Ids end up in file names, libvirt names and log lines, so they hold nothing that any of them would
//! read specially: no `/`, no leading `-` or `.`, no `..`, no control character.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::origin;

/// The longest id, in bytes.
pub const MAX_ID_LEN: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// Nothing was given.
    #[error("the {what} is empty")]
    Empty {
        /// What was expected, as "hypervisor id".
        what: &'static str,
    },
    /// Longer than [`MAX_ID_LEN`].
    #[error("the {what} {start:?}… has {len} bytes; at most {MAX_ID_LEN} are allowed")]
    TooLong {
        /// What was expected.
        what: &'static str,
        /// Its first characters.
        start: String,
        /// Its length in bytes.
        len: usize,
    },
    /// Not an operation's.
    #[error("{text:?} is not an operation's id, a UUID; `hostler operations list` shows them")]
    NotOperation {
        /// The text.
        text: String,
    },
    /// A character that an id cannot hold.
    #[error(
        "the {what} {text:?} is ill-formed; use letters, digits, '.', '_' and '-', beginning with a letter or digit and without '..'"
    )]
    IllFormed {
        /// What was expected.
        what: &'static str,
        /// The text.
        text: String,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    if text.len() > MAX_ID_LEN {
        return Err(InvalidId::TooLong {
            what,
            start: text.chars().take(24).collect(),
            len: text.len(),
        });
    }
    let begins_well = text.as_bytes()[0].is_ascii_alphanumeric();
    let holds_well = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !begins_well || !holds_well || text.contains("..") {
        return Err(InvalidId::IllFormed {
            what,
            text: text.to_owned(),
        });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                check($what, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A host: a machine with an agent. It is the name in the agent's certificate.
    HostName,
    "host name"
);
name!(
    /// What ListHypervisors lists.
    HypervisorId,
    "hypervisor id"
);
name!(
    /// What an operation locks: a hypervisor's id, or a storage pool's name.
    ResourceName,
    "resource name"
);

name!(
    /// A storage pool.
    PoolName,
    "pool name"
);

impl From<&PoolName> for ResourceName {
    fn from(name: &PoolName) -> Self {
        Self(name.0.clone())
    }
}

impl From<&ResourceName> for PoolName {
    fn from(name: &ResourceName) -> Self {
        Self(name.0.clone())
    }
}

impl From<&HypervisorId> for ResourceName {
    fn from(id: &HypervisorId) -> Self {
        Self(id.0.clone())
    }
}

impl From<&ResourceName> for HypervisorId {
    fn from(name: &ResourceName) -> Self {
        Self(name.0.clone())
    }
}

/// One operation. Version 7, so that ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(Uuid);

impl OperationId {
    /// A new id, later than every id that this process made before.
    pub fn generate() -> Self {
        Self(origin::uuid_v7())
    }
}

impl FromStr for OperationId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty { what: "operation id" });
        }
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| InvalidId::NotOperation {
                text: text.chars().take(MAX_ID_LEN).collect(),
            })
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Grows with each new holder of a resource. What carries an older one is refused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// The fence of the next holder. Of the largest number, which only a damaged store holds, it is the same: agents
    /// refuse a fence that is not newer, where they would take one that began at zero for older.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Grows with each session of a host. The newest wins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// One operator process: n0stack's `proposing_peer_token`. Random, made at the process's start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessToken(String);

impl ProcessToken {
    /// A new random token (122 bits).
    pub fn generate() -> Self {
        Self(origin::uuid_v4().to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProcessToken {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        check("process token", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ProcessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_only_what_no_tool_reads_specially() {
        for good in ["a", "hv-1", "node.example.org", "A_b-3", &"x".repeat(MAX_ID_LEN)] {
            assert_eq!(
                good.parse::<HypervisorId>().map(String::from).as_deref(),
                Ok(good)
            );
        }
        for bad in [
            "",
            "-rf",
            ".",
            "..",
            "a..b",
            "a/b",
            "a b",
            "a\n",
            "a\0",
            "é",
            "_x",
            &"x".repeat(MAX_ID_LEN + 1),
        ] {
            assert!(bad.parse::<HypervisorId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_error_about_a_huge_id_stays_short() {
        let error = "x".repeat(1 << 20).parse::<HostName>().unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
        assert!(error.contains("1048576 bytes"), "{error}");
    }

    #[test]
    fn operation_ids_sort_by_age() {
        let ids: Vec<_> = (0..100).map(|_| OperationId::generate()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(
            ids.windows(2)
                .all(|pair| pair[0].to_string() < pair[1].to_string())
        );
    }
}
