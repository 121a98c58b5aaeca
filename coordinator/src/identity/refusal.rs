//! Why a token is not taken, for whoever holds it: each reason with what to do. It decides nothing.

use hostler_common::id::HostName;
use hostler_common::units::UnixMillis;
use hostler_pki::{Fingerprint, TokenError, TokenId};
use thiserror::Error;

/// Why a token is not taken. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not a token.
    #[error(transparent)]
    Form(TokenError),
    /// Nothing is kept of it.
    #[error(
        "token {id} is not known here: it is of another fleet, or of long ago; make one here with hostler tokens create --host {host}"
    )]
    Unknown {
        /// Its id.
        id: TokenId,
        /// The host in it.
        host: HostName,
    },
    /// Not the one that was made.
    #[error("token {id} was altered: {what} is not what was made; copy it again, in one piece")]
    Altered {
        /// Its id.
        id: TokenId,
        /// What is wrong.
        what: &'static str,
    },
    /// Another CA.
    #[error(
        "token {id} names the CA {ca}, which this coordinator does not trust; make another with hostler tokens create --host {host}"
    )]
    OtherCa {
        /// Its id.
        id: TokenId,
        /// The CA in it.
        ca: Fingerprint,
        /// The host in it.
        host: HostName,
    },
    /// It works once.
    #[error(
        "token {id} was used at {at} from {from}, and works once. If that was not this host, revoke it with hostler agents revoke {host}; make another with hostler tokens create --host {host}"
    )]
    Used {
        /// Its id.
        id: TokenId,
        /// When.
        at: UnixMillis,
        /// From which address.
        from: String,
        /// The host.
        host: HostName,
    },
    /// Too late.
    #[error("token {id} expired at {at}; make another with hostler tokens create --host {host}")]
    Expired {
        /// Its id.
        id: TokenId,
        /// When.
        at: UnixMillis,
        /// The host.
        host: HostName,
    },
    /// Taken back.
    #[error("token {id} was revoked at {at} by {by}; make another with hostler tokens create --host {host}")]
    Revoked {
        /// Its id.
        id: TokenId,
        /// When.
        at: UnixMillis,
        /// By whom.
        by: String,
        /// The host.
        host: HostName,
    },
    /// Whoever has it may be why the host was revoked.
    #[error(
        "token {id} was made before host {host} was revoked at {at}; if the host is to come back, make another with hostler tokens create --host {host}"
    )]
    HostRevoked {
        /// Its id.
        id: TokenId,
        /// When its host was revoked the last time.
        at: UnixMillis,
        /// The host.
        host: HostName,
    },
    /// Nobody can tell whether it has expired.
    #[error(
        "token {id} was made at {created_at}, and the coordinator's clock says {now}: it went back. Set the coordinator's clock, then try again"
    )]
    ClockWentBack {
        /// Its id.
        id: TokenId,
        /// When it was made.
        created_at: UnixMillis,
        /// What the clock says.
        now: UnixMillis,
    },
}

impl Refusal {
    /// Whether it is only said to who has shown the secret.
    pub fn is_of_a_holder(&self) -> bool {
        match self {
            Self::Form(_) | Self::Unknown { .. } | Self::Altered { .. } => false,
            Self::OtherCa { .. }
            | Self::Used { .. }
            | Self::Expired { .. }
            | Self::Revoked { .. }
            | Self::HostRevoked { .. }
            | Self::ClockWentBack { .. } => true,
        }
    }
}
