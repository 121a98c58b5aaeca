//! The single values of the configuration. Each refuses by itself what it cannot be.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidValue {
    /// A path that does not begin at the root.
    #[error("the path {path:?} is relative; give it from the root, as /var/lib/…")]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// A command without a program.
    #[error("the command is empty; give a program and its arguments, as [\"/usr/bin/true\"]")]
    EmptyCommand,
    /// A name of a libvirt object that libvirt would not take.
    #[error("the {what} {text:?} is ill-formed; it may not be empty, and not hold '/' or control characters")]
    Name {
        /// What was expected, as "pool name".
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Not a PCI address.
    #[error("{text:?} is not a PCI address; write it as 0000:65:00.0")]
    PciAddress {
        /// The text.
        text: String,
    },
    /// Not a vendor and device id.
    #[error("{text:?} is not a PCI vendor and device; write it as 10de:2236")]
    PciModelId {
        /// The text.
        text: String,
    },
}

/// A path from the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct AbsolutePath(PathBuf);

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = InvalidValue;
    fn try_from(path: PathBuf) -> Result<Self, InvalidValue> {
        if path.is_absolute() {
            Ok(Self(path))
        } else {
            Err(InvalidValue::Relative { path })
        }
    }
}

impl AbsolutePath {
    /// One that is written in the program, and begins at the root.
    pub(super) fn fixed(path: &'static str) -> Self {
        Self(path.into())
    }
}

impl Deref for AbsolutePath {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// A program, by its absolute path, and its arguments. No shell reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Argv {
    /// The program.
    pub program: AbsolutePath,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl TryFrom<Vec<String>> for Argv {
    type Error = InvalidValue;
    fn try_from(words: Vec<String>) -> Result<Self, InvalidValue> {
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty());
        let program = program.ok_or(InvalidValue::EmptyCommand)?;
        Ok(Self {
            program: PathBuf::from(program).try_into()?,
            arguments: words.collect(),
        })
    }
}

/// An amount of memory or disk in MB of 2^20 bytes, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mebibytes(NonZeroU64);

impl Mebibytes {
    /// How many.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0.get().saturating_mul(1 << 20)
    }
}

/// A number of CPU threads, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threads(NonZeroU32);

impl Threads {
    /// How many.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

macro_rules! libvirt_name {
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

        impl TryFrom<String> for $name {
            type Error = InvalidValue;
            fn try_from(text: String) -> Result<Self, InvalidValue> {
                // libvirt keeps each object in a file of its name.
                let well = !text.is_empty() && !text.contains('/') && !text.contains(char::is_control);
                if well { Ok(Self(text)) } else { Err(InvalidValue::Name { what: $what, text }) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                text.to_owned().try_into()
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

libvirt_name!(
    /// A libvirt domain, by name.
    DomainName,
    "domain name"
);
libvirt_name!(
    /// A libvirt network, by name.
    NetworkName,
    "network name"
);
libvirt_name!(
    /// A libvirt storage pool, by name.
    PoolName,
    "pool name"
);
libvirt_name!(
    /// A volume in a libvirt storage pool, by name.
    VolumeName,
    "volume name"
);

/// Where a PCI device sits: domain, bus, slot and function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PciAddress {
    /// The PCI domain.
    pub domain: u16,
    /// The bus.
    pub bus: u8,
    /// The slot, below 32.
    pub slot: u8,
    /// The function, below 8.
    pub function: u8,
}

impl FromStr for PciAddress {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let parse = || {
            let (place, function) = text.rsplit_once('.')?;
            let mut parts = place.split(':');
            let address = Self {
                domain: hex(parts.next()?, 4)?,
                bus: u8::try_from(hex(parts.next()?, 2)?).ok()?,
                slot: u8::try_from(hex(parts.next()?, 2)?).ok()?,
                function: u8::try_from(hex(function, 1)?).ok()?,
            };
            let fits = parts.next().is_none() && address.slot < 32 && address.function < 8;
            fits.then_some(address)
        };
        parse().ok_or_else(|| InvalidValue::PciAddress {
            text: text.to_owned(),
        })
    }
}

impl TryFrom<String> for PciAddress {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            slot,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{slot:02x}.{function:x}")
    }
}

/// A model of PCI device: its vendor and device id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PciModelId {
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number for the model.
    pub device: u16,
}

impl TryFrom<String> for PciModelId {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        let ids = text.split_once(':').and_then(|(vendor, device)| {
            Some(Self {
                vendor: hex(vendor, 4)?,
                device: hex(device, 4)?,
            })
        });
        ids.ok_or(InvalidValue::PciModelId { text })
    }
}

impl fmt::Display for PciModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// Exactly `digits` hexadecimal digits. `from_str_radix` alone would take a sign too.
fn hex(text: &str, digits: usize) -> Option<u16> {
    let well = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    well.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}
