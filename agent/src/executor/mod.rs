//! Carries operations out as steps, journaled, with undo.
pub mod step;
