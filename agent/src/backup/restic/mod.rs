//! restic as a program: how it is found and called, what it says, and why it fails. What a backup of a pool is,
//! is not known here.

pub(super) mod fault;
pub(super) mod locks;
pub(super) mod messages;
pub(super) mod program;
pub(super) mod repository;
