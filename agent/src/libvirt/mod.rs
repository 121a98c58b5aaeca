//! libvirt, by what the agent needs of it. Every method blocks and may take as long as libvirt does, so they
//! are called in [`crate::blocking::Blocking`] only.
//!
//! The connection opens at the first call and again when it broke. A broken connection never stays: whoever
//! meets it throws it away, and the next call opens another.

mod domain;
pub mod events;
mod fault;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzed;
mod network;
mod node_device;
mod pool;
mod volume;

use std::sync::{Arc, Mutex, PoisonError};

use virt::connect::Connect;

pub use domain::{DomainSeen, DomainState};
pub use fault::LibvirtFault;
pub use node_device::PciDevice;
pub use volume::VolumeSeen;

/// Whether a network or a pool is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is not defined.
    Absent,
    /// It is defined and not active.
    Inactive,
    /// It is active.
    Active,
}

/// A connection to libvirt, shared by its clones.
#[derive(Debug, Clone)]
pub struct Libvirt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    uri: String,
    connection: Mutex<Option<Connect>>,
}

impl Libvirt {
    /// For `uri`. It does not connect yet.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            shared: Arc::new(Shared {
                uri: uri.into(),
                connection: Mutex::new(None),
            }),
        }
    }

    /// Where it connects to.
    pub fn uri(&self) -> &str {
        &self.shared.uri
    }

    /// Whether this is libvirt's own test driver, which runs nothing.
    pub fn is_test_driver(&self) -> bool {
        self.shared.uri.starts_with("test:")
    }

    /// The daemon's version, as `9.0.0`. It asks the daemon, so it tells whether libvirt answers.
    ///
    /// # Errors
    /// When libvirt does not answer.
    pub fn version(&self) -> Result<String, LibvirtFault> {
        // libvirt's own encoding: 1,000,000 * major + 1,000 * minor + release.
        let version = self.call(Connect::lib_version)?;
        Ok(format!(
            "{}.{}.{}",
            version / 1_000_000,
            version / 1_000 % 1_000,
            version % 1_000
        ))
    }

    /// Runs `call` on a connection that was alive a moment ago.
    fn call<T>(
        &self,
        call: impl FnOnce(&Connect) -> Result<T, virt::error::Error>,
    ) -> Result<T, LibvirtFault> {
        let connection = self.connection()?;
        call(&connection).map_err(|error| {
            let fault = LibvirtFault::from(error);
            if let LibvirtFault::ConnectionBroken { .. } = fault {
                *self.cached() = None;
            }
            fault
        })
    }

    fn connection(&self) -> Result<Connect, LibvirtFault> {
        // The lock is not held while it opens, which can hang. Two that open at once cost one connection.
        let cached = self.cached().clone();
        if let Some(connection) = cached {
            // Answered from what the client knows; it asks nobody.
            if connection.is_alive().unwrap_or(false) {
                return Ok(connection);
            }
        }
        let connection = events::open(&self.shared.uri)?;
        *self.cached() = Some(connection.clone());
        Ok(connection)
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Option<Connect>> {
        self.shared
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns "there is none" into `None`.
fn found<T>(result: Result<T, LibvirtFault>) -> Result<Option<T>, LibvirtFault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.is_absence() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Takes "it is so already" for done. libvirt reports it as an invalid operation, which says too little by
/// itself; so `is_so` looks.
fn already(
    result: Result<(), LibvirtFault>,
    is_so: impl FnOnce() -> Result<bool, LibvirtFault>,
) -> Result<(), LibvirtFault> {
    match result {
        Err(fault) if fault.may_be_done_already() && is_so()? => Ok(()),
        result => result,
    }
}
