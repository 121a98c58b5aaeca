//! What this host has begun, durable before it is done: one file an operation, and the newest fences.
//!
//! It writes and reads records and never decides what follows from them; that is the executor's. Its
//! functions block (they wait for the disk), so they run in the one place for blocking calls.
//! The invariant: a record that a caller was told is written survives the loss of power.

pub mod fences;
mod lock;
pub mod log;
pub mod read;
pub mod record;
pub mod state_dir;
