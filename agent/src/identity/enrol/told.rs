//! Where the agent connects from now on: what the coordinator says, or else what follows from where the host enrolled.

use hostler_common::DEFAULT_PORT;
use hostler_common::rpc::hostler::enrol::v1::EnrolResponse;
use hostler_pki::CoordinatorAddress;
use serde::{Deserialize, Serialize};

use super::with_port;

/// What an enrolment learnt about addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// Those that the coordinator advertises.
    pub(super) advertised: Vec<CoordinatorAddress>,
    /// The host of the enrolment with the coordinator's port of sessions.
    pub(super) reached: Option<CoordinatorAddress>,
}

impl Told {
    /// From an answer that came from `enrolled_at`.
    pub(super) fn by(answer: &EnrolResponse, enrolled_at: &CoordinatorAddress) -> Self {
        // A coordinator of before this field was says 0.
        let port = match u16::try_from(answer.session_port) {
            Ok(0) | Err(_) => DEFAULT_PORT,
            Ok(port) => port,
        };
        let parsed = answer.coordinators.iter().filter_map(|text| text.parse().ok());
        Self {
            advertised: parsed.collect(),
            reached: with_port(enrolled_at.host(), port).ok(),
        }
    }

    /// The one to connect to.
    pub(super) fn first(&self) -> Option<&CoordinatorAddress> {
        self.advertised.first().or(self.reached.as_ref())
    }

    /// Why it is that one, when the coordinator has not said so.
    pub(super) fn why(&self) -> &'static str {
        match self.advertised.is_empty() {
            true => ", where it enrolled this host, since it advertises no address",
            false => "",
        }
    }
}
