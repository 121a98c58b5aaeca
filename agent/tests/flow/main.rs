//! The agent's flow without a host: the executor's transitions, the journal, the laws of operations over a fake
//! world, and the session against a scripted coordinator.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, its helpers included"
)]

mod cancel;
mod coordinator;
mod desk;
mod identity;
mod journal;
mod laws;
mod looks;
mod plans;
mod questions;
mod session;
mod state;
mod world;
