//! A lock that a client holds on a resource: n0stack's proposal by an operator that is no agent, checked.
//!
//! It is an operation like the others for the queue and the history, but no [`super::Request`]: an agent is never
//! asked to carry one out, so its code need not say what it would do.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Cancelling, OperationKind};
use crate::id::{InvalidId, ProcessToken, ResourceName};
use crate::rpc::n0stack::protobuf as n0stack;

/// The only project there is.
const PROJECT: &str = "default";

/// The longest lock, in seconds: seven days. What takes longer is renewed by somebody who still means it.
pub const HOLD_SECONDS_AT_MOST: u32 = 7 * 24 * 60 * 60;

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Purpose {
    /// An agent changes something.
    Work(OperationKind),
    /// A client keeps others away from the resource.
    Hold(HoldKind),
}

/// How a lock that a client holds is called where kinds are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HoldKind {
    /// As in the rpc.
    ProposeOperation,
}

impl Purpose {
    /// A lock that a client holds.
    pub const HOLD: Self = Self::Hold(HoldKind::ProposeOperation);

    /// As in the rpc.
    pub fn name(self) -> &'static str {
        match self {
            Self::Work(kind) => kind.name(),
            Self::Hold(HoldKind::ProposeOperation) => "ProposeOperation",
        }
    }

    /// The verb for people, before the resource's name.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Work(kind) => kind.verb(),
            Self::Hold(HoldKind::ProposeOperation) => "hold",
        }
    }
}

/// A proposal by a client, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What it is about.
    pub resource: ResourceName,
    /// The proposing process.
    pub token: ProcessToken,
    /// What it wants.
    pub wish: HoldWish,
    /// Appended to the log unless it is empty.
    pub log_message: String,
    /// Whether somebody else may end it before its time.
    pub cancelling: Cancelling,
}

/// What a client wants with a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldWish {
    /// To have it, from now, for so many seconds.
    Have(u32),
    /// To give it back: `lock_for_seconds` 0.
    Release,
}

impl Hold {
    /// Understands `proposal`.
    ///
    /// # Errors
    /// When it names nothing, another project than the one there is, no token, or too long a time.
    pub fn of(proposal: &n0stack::ProposeOperationRequest) -> Result<Self, InvalidHold> {
        if !["", PROJECT].contains(&proposal.project.as_str()) {
            return Err(InvalidHold::Project {
                project: proposal.project.chars().take(32).collect(),
            });
        }
        let wish = match proposal.lock_for_seconds {
            0 => HoldWish::Release,
            seconds if seconds > HOLD_SECONDS_AT_MOST => return Err(InvalidHold::TooLong { seconds }),
            seconds => HoldWish::Have(seconds),
        };
        Ok(Self {
            resource: proposal.name.parse()?,
            token: proposal.proposing_peer_token.parse()?,
            wish,
            log_message: proposal.log_message.clone(),
            cancelling: match proposal.is_disabled_cancel {
                true => Cancelling::Disabled,
                false => Cancelling::Allowed,
            },
        })
    }
}

/// Why a proposal makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidHold {
    /// Its name or its token is none.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// There is one project.
    #[error("the project is {project:?}; there is only {PROJECT:?}, which may be left out")]
    Project {
        /// The beginning of its name.
        project: String,
    },
    /// Nobody holds a resource so long without looking again.
    #[error(
        "lock_for_seconds is {seconds}; at most {HOLD_SECONDS_AT_MOST} (7 days) are allowed: propose again before the lock ends"
    )]
    TooLong {
        /// What was asked for.
        seconds: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal() -> n0stack::ProposeOperationRequest {
        n0stack::ProposeOperationRequest {
            name: "hv1".into(),
            project: "default".into(),
            lock_for_seconds: 60,
            log_message: "disk swap".into(),
            is_disabled_cancel: true,
            proposing_peer_token: "a-token".into(),
        }
    }

    #[test]
    fn a_proposal_becomes_a_lock_or_its_release() {
        let hold = Hold::of(&proposal()).unwrap();
        assert_eq!(
            (hold.wish, hold.cancelling),
            (HoldWish::Have(60), Cancelling::Disabled)
        );
        let release = n0stack::ProposeOperationRequest {
            project: String::new(),
            lock_for_seconds: 0,
            ..proposal()
        };
        assert_eq!(Hold::of(&release).unwrap().wish, HoldWish::Release);
        let longest = n0stack::ProposeOperationRequest {
            lock_for_seconds: HOLD_SECONDS_AT_MOST,
            ..proposal()
        };
        assert!(Hold::of(&longest).is_ok());
    }

    #[test]
    fn a_proposal_that_makes_no_sense_is_refused_by_what_is_wrong_with_it() {
        let refused = |change: fn(&mut n0stack::ProposeOperationRequest)| {
            let mut wrong = proposal();
            change(&mut wrong);
            Hold::of(&wrong).unwrap_err().to_string()
        };
        for (change, words) in [
            (
                (|it| it.name.clear()) as fn(&mut n0stack::ProposeOperationRequest),
                "the resource name is empty",
            ),
            (
                |it| it.name = "a/b".into(),
                "the resource name \"a/b\" is ill-formed",
            ),
            (|it| it.proposing_peer_token.clear(), "the process token is empty"),
            (|it| it.project = "other".into(), "the project is \"other\""),
            (
                |it| it.lock_for_seconds = HOLD_SECONDS_AT_MOST + 1,
                "lock_for_seconds is 604801",
            ),
        ] {
            let said = refused(change);
            assert!(said.starts_with(words), "{said}");
        }
    }

    #[test]
    fn purposes_have_names_of_their_own_and_keep_the_stored_form_of_kinds() {
        use serde::de::IntoDeserializer as _;
        use serde::de::value::{Error, StrDeserializer};

        let works = OperationKind::ALL.map(Purpose::Work);
        let mut names = std::collections::HashSet::new();
        for purpose in works.into_iter().chain([Purpose::HOLD]) {
            assert!(names.insert(purpose.name()), "{purpose:?}");
            let stored: StrDeserializer<'_, Error> = purpose.name().into_deserializer();
            assert_eq!(Purpose::deserialize(stored), Ok(purpose));
        }
    }
}
