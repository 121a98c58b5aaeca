//! The edge: the one mTLS port, who may call what, and the services that clients call. Handlers record what
//! is wanted and follow it; none changes the fleet itself.

mod agents;
mod auditing;
pub mod authz;
mod bulk;
mod dry_run;
mod expunging;
pub mod fleet;
pub mod health;
mod hold;
pub mod listener;
pub mod operations;
mod pool;
pub mod progress;
mod rejected;
mod revocations;
pub mod serve;
pub mod site;
mod status;
mod storage;
mod submit;
mod tokens;
mod watch_hypervisors;
mod watchman;
