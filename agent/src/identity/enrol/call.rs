//! The one call of an enrolment, and what its answer means. The invariant: the token is sent only to who has proved to hold
//! the CA that it names.

use std::time::Duration;

use hostler_common::error::excerpt;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_client::EnrolServiceClient;
use hostler_common::rpc::hostler::enrol::v1::{EnrolRequest, EnrolResponse};
use hostler_pki::{ChannelError, ChannelOptions, CoordinatorAddress, EnrolToken, connect_to_enrol};
use thiserror::Error;
use tonic::{Code, Status};

/// For one signature and one write of the coordinator's.
const DEADLINE: Duration = Duration::from_secs(30);
/// A certificate and eight CAs have about 10 KiB.
const ANSWER_AT_MOST: usize = 256 * 1024;

/// Why the coordinator gave no certificate.
#[derive(Debug, Error)]
pub enum CallError {
    /// It was not reached, or is not the one that made the token.
    #[error("there is no connection")]
    Connect {
        /// Why.
        #[from]
        source: ChannelError,
    },
    /// It does not take the token.
    #[error("the token is refused: {reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// It does not take anything now.
    #[error("it takes no more tries for now: {reason}")]
    TooMany {
        /// How long to wait.
        reason: String,
    },
    /// Something else listens there.
    #[error("{address} serves no enrolment; check the port")]
    NotServed {
        /// Where.
        address: CoordinatorAddress,
    },
    /// It may have happened or not.
    #[error(
        "{reason}; run the same command again: it goes on with the same key, and the token is still good for that"
    )]
    Broken {
        /// What broke.
        reason: String,
    },
}

impl CallError {
    /// Whether the same call may succeed soon by itself.
    pub(super) fn passes_by_itself(&self) -> bool {
        match self {
            Self::TooMany { .. } | Self::Broken { .. } => true,
            Self::Refused { .. } | Self::NotServed { .. } => false,
            Self::Connect { source } => match source {
                ChannelError::Resolve { .. }
                | ChannelError::Refused { .. }
                | ChannelError::Unreachable { .. }
                | ChannelError::TimedOut { .. }
                // A coordinator whose port is crowded hangs up.
                | ChannelError::Closed { .. } => true,
                ChannelError::CertificateRefused { .. }
                | ChannelError::ServerCertificate { .. }
                | ChannelError::NotPinned { .. }
                | ChannelError::NotForEnrolment { .. }
                | ChannelError::Setup { .. }
                | ChannelError::Handshake { .. }
                | ChannelError::Protocol { .. } => false,
            },
        }
    }

    /// Whether the coordinator may have given the token to our key all the same.
    pub(super) fn may_have_counted(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }
}

/// Sends the request.
pub(super) async fn call(
    address: &CoordinatorAddress,
    token: &EnrolToken,
    csr_der: &[u8],
) -> Result<EnrolResponse, CallError> {
    let channel = connect_to_enrol(address, token.ca(), ChannelOptions::default()).await?;
    let mut client = EnrolServiceClient::new(channel).max_decoding_message_size(ANSWER_AT_MOST);
    let request = EnrolRequest {
        token: token.to_word().to_string(),
        csr_der: csr_der.to_vec(),
        agent_version: hostler_common::VERSION.to_owned(),
    };
    match tokio::time::timeout(DEADLINE, client.enrol(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refusal(address, &status)),
        Err(_) => Err(CallError::Broken {
            reason: format!("the coordinator did not answer within {} s", DEADLINE.as_secs()),
        }),
    }
}

fn refusal(address: &CoordinatorAddress, status: &Status) -> CallError {
    let reason = match hostler_pki::explain(status) {
        Some(trouble) => {
            return CallError::Broken {
                reason: trouble.words,
            };
        }
        None => excerpt(status.message()).into_owned(),
    };
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
            CallError::Refused { reason }
        }
        Code::ResourceExhausted => CallError::TooMany { reason },
        Code::Unimplemented => CallError::NotServed {
            address: address.clone(),
        },
        _ => CallError::Broken { reason },
    }
}
