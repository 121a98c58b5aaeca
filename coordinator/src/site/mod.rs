//! The site around the fleet: how the coordinator is, who has an agent, and what leaves for good.
//!
//! It never decides who may ask (`api/authz` does). The invariant: a hypervisor or a pool leaves the list only through
//! [`expunge`], and operations of a host that is declared lost end through the engine.

pub mod agents;
pub mod expunge;
pub mod known;
pub mod lose;
pub mod status;
