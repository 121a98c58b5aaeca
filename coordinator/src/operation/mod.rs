//! Operations: what was asked of a resource, who holds it, what was said of it, how it ended.

pub mod engine;
pub mod forsaken;
pub mod history;
pub mod hold;
pub mod locks;
pub(crate) mod reading;
pub mod record;
pub mod retention;
pub mod sentences;
pub mod state;
pub mod watch;
pub mod wish;
