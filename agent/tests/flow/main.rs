//! The agent's flow without a host: the executor's transitions, the journal, the laws of operations over a fake
//! world, and the session against a scripted coordinator.

mod coordinator;
mod journal;
mod laws;
mod session;
mod state;
mod world;
