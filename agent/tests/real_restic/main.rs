//! Backups with the real restic, on plain directories that stand in for a pool: what plain restic makes of them, what
//! happens when the repository is in the way, when a process dies, and when somebody cancels.
//!
//! They need root, for devices, owners and a small file system. One of them uses a real btrfs.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, its helpers included"
)]

mod btrfs;
mod crash;
mod create;
mod faults;
mod restore;
mod rig;
mod tree;
