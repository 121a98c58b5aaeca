//! Tokens, certificates and revocations: as they are stored, at the port for enrolment, and when somebody is revoked.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

mod enrolling;
mod revoking;
mod site;
mod stored;
