//! The kinds of operation on a hypervisor, and the request that stands for each on the wire.

use prost::{Message as _, Name as _};
use prost_types::Any;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{HypervisorId, InvalidId};
use crate::rpc::operations::v1::{CreateHypervisorRequest, DestroyHypervisorRequest};

/// What an operation does to its hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperationKind {
    /// Puts it in service.
    CreateHypervisor,
    /// Takes it out of service.
    DestroyHypervisor,
}

impl OperationKind {
    /// As in the rpc.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateHypervisor => "CreateHypervisor",
            Self::DestroyHypervisor => "DestroyHypervisor",
        }
    }

    /// The verb for people.
    pub fn verb(self) -> &'static str {
        match self {
            Self::CreateHypervisor => "create",
            Self::DestroyHypervisor => "destroy",
        }
    }

    /// The request that asks for it, as an operation stores and offers it.
    pub fn request(self, id: &HypervisorId) -> Any {
        let id = id.to_string();
        match self {
            Self::CreateHypervisor => pack(&CreateHypervisorRequest { id }),
            Self::DestroyHypervisor => pack(&DestroyHypervisorRequest { id }),
        }
    }

    /// What `request` asks for.
    ///
    /// # Errors
    /// When it is of a type that this version does not know, malformed, or names no valid hypervisor.
    pub fn of_request(request: &Any) -> Result<(Self, HypervisorId), RequestError> {
        let malformed = |source| RequestError::Malformed {
            type_url: request.type_url.clone(),
            source,
        };
        if request.type_url == CreateHypervisorRequest::type_url() {
            let body = CreateHypervisorRequest::decode(&*request.value).map_err(malformed)?;
            return Ok((Self::CreateHypervisor, body.id.parse()?));
        }
        if request.type_url == DestroyHypervisorRequest::type_url() {
            let body = DestroyHypervisorRequest::decode(&*request.value).map_err(malformed)?;
            return Ok((Self::DestroyHypervisor, body.id.parse()?));
        }
        Err(RequestError::UnknownType {
            type_url: request.type_url.clone(),
        })
    }
}

fn pack<M: prost::Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// Why a stored or offered request is not an operation.
#[derive(Debug, Error)]
pub enum RequestError {
    /// Of another version of Hostler, perhaps.
    #[error("requests of type {type_url:?} are not known to this version")]
    UnknownType {
        /// The type.
        type_url: String,
    },
    /// Its bytes do not decode.
    #[error("the request of type {type_url:?} is malformed")]
    Malformed {
        /// The type.
        type_url: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// It names no valid hypervisor.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_request() {
        let id: HypervisorId = "hv-1".parse().unwrap();
        for kind in [OperationKind::CreateHypervisor, OperationKind::DestroyHypervisor] {
            let request = kind.request(&id);
            assert_eq!(
                request.type_url,
                format!("type.googleapis.com/operations.v1.{}Request", kind.name())
            );
            assert_eq!(OperationKind::of_request(&request).unwrap(), (kind, id.clone()));
        }
    }

    #[test]
    fn a_foreign_request_is_refused_by_its_type() {
        let foreign = Any {
            type_url: "type.googleapis.com/operations.v1.Unheard".into(),
            value: vec![],
        };
        assert!(
            OperationKind::of_request(&foreign)
                .unwrap_err()
                .to_string()
                .contains("Unheard")
        );
    }
}
