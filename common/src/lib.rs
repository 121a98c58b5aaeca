//! What every part of Hostler shares. It does no I/O of its own but reading configuration files and
//! writing logs (and what tests ask of `failpoint`), and knows neither TLS nor libvirt nor a store.

pub mod bytes;
pub mod codec;
pub mod config;
pub mod error;
pub mod failpoint;
pub mod id;
pub mod measure;
pub mod operation;
pub mod origin;
pub mod retry;
pub mod rpc;
pub mod shutdown;
pub mod telemetry;
pub mod throttle;
pub mod units;

/// The version of this build, as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The same for `--version`: a build that is only for tests says so.
pub const BUILD: &str = match failpoint::BUILT_IN {
    true => concat!(env!("CARGO_PKG_VERSION"), " with failpoints"),
    false => VERSION,
};

/// The port that IsardVDI's clients dial when none is named (wire.md, `operations.v1`).
pub const DEFAULT_PORT: u16 = 1312;

/// The port at which hosts enrol when none is named.
pub const DEFAULT_ENROL_PORT: u16 = 1313;
