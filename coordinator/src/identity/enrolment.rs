//! hostler.enrol.v1: trades a token for a certificate.
//!
//! It serves callers that nobody knows. The invariants: a wrong token costs the coordinator a read and nothing durable;
//! a certificate is handed out only after the token is durably used up; and who keeps guessing delays nobody else, since
//! each address has its own measure and each open token another.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use data_encoding::HEXLOWER;
use hostler_common::DEFAULT_PORT;
use hostler_common::error::Chain;
use hostler_common::rpc::hostler::enrol::v1::enrol_service_server::EnrolService;
use hostler_common::rpc::hostler::enrol::v1::{EnrolRequest, EnrolResponse};
use hostler_common::units::UnixMillis;
use hostler_pki::request::{RequestError, key_digest};
use hostler_pki::{CoordinatorAddress, EnrolToken, Identity, Subject, TokenId};
use thiserror::Error;
use tonic::{Code, Request, Response, Status};

use super::Identities;
use super::attempt::Attempt;
use super::guessing::{Buckets, Charge, Pace, TooOften, neighbourhood};
use super::keeper::SignError;
use super::places::Seat;
use super::tokens::{Refusal, Standing, TokensError};
use crate::audit::Audit;
use crate::operation::sentences;

/// Refused attempts of one address: a person with typos, or a rollout with old tokens.
const PER_ADDRESS: Pace = Pace {
    burst: 10,
    every: Duration::from_secs(6),
};

/// Refused attempts that name no open token, of all addresses.
const OVERALL: Pace = Pace {
    burst: 200,
    every: Duration::from_millis(200),
};

/// Refused attempts that name one open token. Its id is in no log but ours, and is 64 random bits: who does not know it
/// cannot use this up for the host that the token is for.
const PER_TOKEN: Pace = Pace {
    burst: 10,
    every: Duration::from_secs(6),
};

/// Addresses, and open tokens, that are remembered: some 60 bytes each.
const REMEMBERED_AT_MOST: usize = 4096;

/// Conflicts with another attempt for the same token. Each attempt changes it once at most.
const TRIES_AT_MOST: usize = 8;

/// The longest version that is logged, in bytes.
const VERSION_AT_MOST: usize = 32;

/// Why somebody got no certificate.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// Too often wrong.
    #[error("too many refused attempts {whose}; try again in {} s", wait.as_secs() + 1)]
    TooOften {
        /// From where.
        whose: &'static str,
        /// How long to wait.
        wait: Duration,
    },
    /// The token is not taken.
    #[error(transparent)]
    Refused(Refusal),
    /// The request is none.
    #[error("the certificate request is refused")]
    Request(#[source] RequestError),
    /// Two at once for one token.
    #[error("others enrol with this token right now; try again")]
    Contended,
    /// The CA does not sign.
    #[error(
        "the coordinator cannot sign certificates now; its log says why. The token is not used up: try again"
    )]
    Sign(#[source] SignError),
    /// The store fails.
    #[error("the coordinator cannot store that the token is used; its log says why. Try again")]
    Tokens(#[source] TokensError),
}

impl EnrolError {
    /// As it is answered.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::TooOften { .. } => Code::ResourceExhausted,
            Self::Refused(_) => Code::PermissionDenied,
            Self::Request(_) => Code::InvalidArgument,
            Self::Contended | Self::Sign(_) | Self::Tokens(_) => Code::Unavailable,
        }
    }

    fn status(&self) -> Status {
        let words = match self {
            Self::Request(_) => Chain(self).to_string(),
            // What the coordinator's trouble is stays in its log.
            other => other.to_string(),
        };
        Status::new(self.code(), words)
    }
}

/// Who tries to enrol; what the listener knows.
#[derive(Debug, Clone)]
pub struct Caller {
    address: SocketAddr,
    seat: Option<Seat>,
}

impl Caller {
    /// From `address`, over no connection.
    pub fn at(address: SocketAddr) -> Self {
        let seat = None;
        Self { address, seat }
    }

    /// From `address`, on a place at the port.
    pub(super) fn with(address: SocketAddr, seat: Seat) -> Self {
        let seat = Some(seat);
        Self { address, seat }
    }
}

/// Serves [`EnrolService`].
pub struct Enrolment {
    identities: Identities,
    audit: Audit,
    coordinators: Vec<CoordinatorAddress>,
    session_port: u16,
    by_address: Buckets<IpAddr>,
    by_token: Buckets<TokenId>,
    overall: Buckets<()>,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").finish_non_exhaustive()
    }
}

/// Which measure an attempt takes from beside that of its address.
#[derive(Clone, Copy)]
enum Measure {
    Overall,
    Token(TokenId),
}

struct Enrolled {
    identity: Identity,
    not_after: UnixMillis,
    response: EnrolResponse,
}

impl Enrolment {
    /// Enrols with `identities`; agents are told to connect at `coordinators`.
    pub fn new(identities: Identities, coordinators: Vec<CoordinatorAddress>) -> Self {
        Self {
            identities,
            audit: Audit::off(),
            coordinators,
            session_port: DEFAULT_PORT,
            by_address: Buckets::new(PER_ADDRESS, REMEMBERED_AT_MOST),
            by_token: Buckets::new(PER_TOKEN, REMEMBERED_AT_MOST),
            overall: Buckets::new(OVERALL, 1),
        }
    }

    /// The same with a log in which each attempt is noted.
    #[must_use]
    pub fn noted_in(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// The log in which each attempt is noted.
    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The same for agents that are taken at `port`.
    #[must_use]
    pub fn for_sessions_at(self, session_port: u16) -> Self {
        Self { session_port, ..self }
    }

    /// One attempt of somebody at `from`.
    ///
    /// # Errors
    /// Why there is no certificate.
    pub async fn attempt(
        &self,
        from: SocketAddr,
        request: EnrolRequest,
    ) -> Result<EnrolResponse, EnrolError> {
        let token =
            EnrolToken::parse(&request.token).map_err(|error| EnrolError::Refused(Refusal::Form(error)));
        let attempt = Attempt::begun(&self.audit, from, token.as_ref().ok());
        let neighbours = neighbourhood(from.ip());
        let outcome = match self.by_address.look(&neighbours) {
            Err(TooOften { wait }) => Err(EnrolError::TooOften {
                whose: "from this address",
                wait,
            }),
            // Charged afterwards: many hosts with right tokens come from one address at once. How many guesses do, the port
            // bounds.
            Ok(()) => {
                let mut charge = Charge::due(&self.by_address, &neighbours);
                let outcome = self.trade(&attempt, from, token, &request).await;
                // What is not a wrong token does not count as one.
                charge.is_due = matches!(outcome, Err(EnrolError::Refused(_) | EnrolError::TooOften { .. }));
                outcome
            }
        };
        attempt.ended(match &outcome {
            Ok(enrolled) => Ok((&enrolled.identity, enrolled.not_after)),
            Err(error) => Err(error),
        });
        outcome.map(|enrolled| enrolled.response)
    }

    async fn trade(
        &self,
        attempt: &Attempt<'_>,
        from: SocketAddr,
        token: Result<EnrolToken, EnrolError>,
        request: &EnrolRequest,
    ) -> Result<Enrolled, EnrolError> {
        let named = match &token {
            Ok(token) => self
                .identities
                .tokens
                .get(token.id())
                .await
                .map_err(EnrolError::Tokens)?,
            Err(_) => None,
        };
        let is_open = |held: &super::tokens::Held| held.record.standing(UnixMillis::now()) == Standing::Open;
        let measure = match (&token, &named) {
            (Ok(token), Some(held)) if is_open(held) => Measure::Token(token.id()),
            _ => Measure::Overall,
        };
        self.take(measure)?;
        let outcome = match token {
            Ok(token) => self.redeem(attempt, from, &token, request).await,
            Err(error) => Err(error),
        };
        if !matches!(outcome, Err(EnrolError::Refused(_))) {
            self.put_back(measure);
        }
        outcome
    }

    fn take(&self, measure: Measure) -> Result<(), EnrolError> {
        let (taken, whose) = match measure {
            Measure::Overall => (self.overall.take(&()), "from everywhere"),
            Measure::Token(id) => (self.by_token.take(&id), "with this token"),
        };
        taken.map_err(|TooOften { wait }| EnrolError::TooOften { whose, wait })
    }

    fn put_back(&self, measure: Measure) {
        match measure {
            Measure::Overall => self.overall.put_back(&()),
            Measure::Token(id) => self.by_token.put_back(&id),
        }
    }

    async fn redeem(
        &self,
        attempt: &Attempt<'_>,
        from: SocketAddr,
        token: &EnrolToken,
        request: &EnrolRequest,
    ) -> Result<Enrolled, EnrolError> {
        let (id, tokens) = (token.id(), &self.identities.tokens);
        let mut key = None;
        for _ in 0..TRIES_AT_MOST {
            let unknown = || Refusal::Unknown {
                id,
                host: token.host().clone(),
            };
            let held = tokens.get(id).await.map_err(EnrolError::Tokens)?;
            let held = held.ok_or_else(|| EnrolError::Refused(unknown()))?;
            let now = UnixMillis::now();
            let digest = match &key {
                Some(digest) => digest,
                // Before the request is looked at: a signature costs more than a hash.
                None => {
                    let admitted = held.record.admit(token, "", now);
                    if admitted.as_ref().err().is_none_or(Refusal::is_of_a_holder) {
                        attempt.has_secret();
                    }
                    if let Err(refusal) = admitted
                        && !matches!(refusal, Refusal::Used { .. })
                    {
                        return Err(EnrolError::Refused(refusal));
                    }
                    let digest = key_digest(&request.csr_der).map_err(EnrolError::Request)?;
                    key.insert(HEXLOWER.encode(&digest))
                }
            };
            held.record
                .admit(token, digest, now)
                .map_err(EnrolError::Refused)?;
            let subject = Subject::Agent {
                host: held.record.host.clone(),
            };
            let revoked = self.identities.revocations.last(&subject);
            held.record.outlives(id, revoked).map_err(EnrolError::Refused)?;
            let own = self.identities.own();
            let own = own.ok_or(EnrolError::Sign(SignError::NotConfigured))?;
            if !own.trusts(token.ca()) {
                let (ca, host) = (token.ca(), token.host().clone());
                return Err(EnrolError::Refused(Refusal::OtherCa { id, ca, host }));
            }
            // Signed first: a CA that cannot sign uses up no token. Handed out last.
            let signed = self
                .identities
                .sign(request.csr_der.clone(), subject.clone())
                .await
                .map_err(EnrolError::Sign)?;
            // What was signed begins after a revocation that came meanwhile, which would not cover it.
            if self.identities.revocations.last(&subject) != revoked {
                continue;
            }
            let used = tokens.use_up(&held, from.ip().to_canonical().to_string(), digest.clone(), now);
            if !used.await.map_err(EnrolError::Tokens)? {
                continue;
            }
            return Ok(Enrolled {
                not_after: signed.not_after,
                response: EnrolResponse {
                    host: held.record.host.to_string(),
                    certificate_pem: signed.certificate_pem,
                    ca_pem: own.ca_pem().to_owned(),
                    coordinators: self.coordinators.iter().map(ToString::to_string).collect(),
                    session_port: self.session_port.into(),
                },
                identity: signed.identity,
            });
        }
        Err(EnrolError::Contended)
    }
}

#[tonic::async_trait]
impl EnrolService for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let caller: Option<Caller> = request.extensions().get().cloned();
        let caller = caller.ok_or_else(|| Status::internal("the connection has no address"))?;
        let _served = caller.seat.as_ref().map(Seat::calls);
        let from = caller.address;
        let request = request.into_inner();
        let version = sentences::bounded(&request.agent_version, VERSION_AT_MOST);
        tracing::debug!(peer = %from, version, "an agent wants to enrol");
        match self.attempt(from, request).await {
            Ok(response) => Ok(Response::new(response)),
            Err(error) => Err(error.status()),
        }
    }
}
