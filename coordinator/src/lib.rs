//! The coordinator: keeps the fleet's state, answers clients, hands operations to agents.
//!
//! The way down: api → operation/engine → store; store → registry → dispatch → session. The way back:
//! session → operation/engine → store → registry → operation/watch → api. The store is the only thing that
//! two coordinators would share.

pub mod api;
pub mod audit;
pub mod config;
pub mod dispatch;
pub mod enroll;
pub mod failpoint;
pub mod identity;
pub mod liveness;
pub mod operation;
pub mod registry;
pub mod service_manager;
pub mod session;
pub mod site;
pub mod store;
pub mod vital;
pub mod wiring;
