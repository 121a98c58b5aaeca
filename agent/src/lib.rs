//! The agent: reports what a host has, and does libvirt and storage work on it.

pub mod backup;
pub mod blocking;
pub mod check;
pub mod command;
pub mod config;
pub mod executor;
pub mod failpoint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod hypervisor;
pub mod identity;
pub mod inventory;
pub mod journal;
pub mod libvirt;
mod mount_table;
pub mod service_manager;
pub mod session;
pub mod storage;
pub mod wiring;
