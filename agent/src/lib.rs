//! The agent: reports what a host has, and does libvirt and storage work on it.

pub mod executor;
