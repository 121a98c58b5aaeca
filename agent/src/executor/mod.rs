//! Carries operations out as steps, journaled, with undo.
//!
//! It knows neither libvirt nor the coordinator: plans come from a closure, progress and ends go to whoever
//! asked. The invariant: what a step does is in the journal before it is done (`run.rs`), and which step
//! follows which is decided in one pure place (`state.rs`).

pub mod cancel;
pub mod leave;
mod listener;
pub mod outbox;
pub mod plan;
mod planning;
pub mod resume;
pub mod run;
pub mod state;
pub mod step;
pub mod tries;
mod words;
mod writing;
