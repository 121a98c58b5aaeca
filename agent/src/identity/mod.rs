//! Who this host is: how it gets its certificate, keeps it alive, and follows the CAs that are trusted.
//!
//! ```text
//!  enrol ──▶ files ◀── keeper ◀── line ◀── session ◀── RenewAnswer, Trust
//!                        │ wishes ─▶ line ─▶ session ──▶ Renew
//! ```
//!
//! `schedule.rs` says when, `files.rs` reads and writes, `keeper.rs` is the task that renews, `trust.rs` takes CAs, `line.rs` is
//! between the keeper and the session, `enrol/` is `hostler-agent enrol`. None of it decides what a peer may do. The invariant: what
//! the files hold can be used at each moment, also when this process dies in the middle of a change.

pub mod enrol;
pub mod files;
pub mod keeper;
pub mod line;
pub mod schedule;
pub mod trust;
pub mod words;
