//! The agent's side of the stream to the coordinator.
//!
//! `desk.rs` knows what is held and decides, `live.rs` carries one stream, `task.rs` dials for ever at the pace of `redial.rs`,
//! `report.rs` looks at the host, `questions.rs` answers what takes no lease. Nothing here runs a step.
//! The invariant: an operation runs only under an accepted proposal, never twice at a time, and its end is repeated
//! until the coordinator has answered it.

pub mod desk;
pub mod dial;
mod held;
mod live;
mod messages;
pub mod pulse;
pub mod questions;
mod redial;
pub mod report;
pub mod task;
