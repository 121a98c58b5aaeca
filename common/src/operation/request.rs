//! A request as it was received, and what it asks for, checked.

use prost::{Message, Name};
use prost_types::Any;
use thiserror::Error;

use super::{BackupId, InvalidBackup, OperationKind, PoolPath, ReadShare, RestoreInto};
use crate::bytes::Bytes;
use crate::error::excerpt;
use crate::id::{HypervisorId, InvalidId, PoolName};
use crate::rpc::hostler::fleet::v1 as fleet;
use crate::rpc::operations::v1 as operations;

/// Paths of one restore.
const PATHS_AT_MOST: usize = 1000;

/// What is asked for. The pool is not part of it: an operation names its resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Puts a hypervisor in service.
    CreateHypervisor(HypervisorId),
    /// Takes a hypervisor out of service.
    DestroyHypervisor(HypervisorId),
    /// Grows a pool.
    ExpandStorage {
        /// By at least this; not zero.
        min: Bytes,
    },
    /// Shrinks a pool.
    ShrinkStorage {
        /// By at most this; not zero.
        max: Bytes,
    },
    /// Backs a pool up.
    CreateBackup,
    /// Checks a pool's repository.
    VerifyBackup {
        /// A backup that must be there.
        id: Option<BackupId>,
        /// How much is read back.
        read: ReadShare,
    },
    /// Brings files back.
    RestoreBackup {
        /// From which backup.
        id: BackupId,
        /// Where to.
        into: RestoreInto,
        /// Which; all when it is empty.
        paths: Vec<PoolPath>,
    },
    /// Deletes a backup.
    DeleteBackup {
        /// Which. Never by "latest": what that is may change before it runs.
        id: BackupId,
    },
}

impl Request {
    /// What kind of operation it is.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::CreateHypervisor(_) => OperationKind::CreateHypervisor,
            Self::DestroyHypervisor(_) => OperationKind::DestroyHypervisor,
            Self::ExpandStorage { .. } => OperationKind::ExpandStorage,
            Self::ShrinkStorage { .. } => OperationKind::ShrinkStorage,
            Self::CreateBackup => OperationKind::CreateBackup,
            Self::VerifyBackup { .. } => OperationKind::VerifyBackup,
            Self::RestoreBackup { .. } => OperationKind::RestoreBackup,
            Self::DeleteBackup { .. } => OperationKind::DeleteBackup,
        }
    }

    /// What `any` asks for. The dry-run flag is passed over: it says how to ask, not what for.
    ///
    /// # Errors
    /// When it is of a type that this version does not know, malformed, or holds a value that makes no sense.
    pub fn of(any: &Any) -> Result<Self, RequestError> {
        let url = &any.type_url;
        // An unknown type names itself below.
        if *url == operations::CreateHypervisorRequest::type_url() {
            let body: operations::CreateHypervisorRequest = body(any)?;
            Ok(Self::CreateHypervisor(body.id.parse()?))
        } else if *url == operations::DestroyHypervisorRequest::type_url() {
            let body: operations::DestroyHypervisorRequest = body(any)?;
            Ok(Self::DestroyHypervisor(body.id.parse()?))
        } else if *url == operations::ExpandStorageRequest::type_url() {
            let body: operations::ExpandStorageRequest = body(any)?;
            let min = amount("min_bytes", body.min_bytes.into())?;
            Ok(Self::ExpandStorage { min })
        } else if *url == operations::ShrinkStorageRequest::type_url() {
            let body: operations::ShrinkStorageRequest = body(any)?;
            let max = amount("max_bytes", body.max_bytes.into())?;
            Ok(Self::ShrinkStorage { max })
        } else if *url == operations::CreateBackupRequest::type_url() {
            body::<operations::CreateBackupRequest>(any).map(|_| Self::CreateBackup)
        } else if *url == fleet::ExpandStorageRequest::type_url() {
            let body: fleet::ExpandStorageRequest = body(any)?;
            let min = amount("min_bytes", body.min_bytes.into())?;
            Ok(Self::ExpandStorage { min })
        } else if *url == fleet::ShrinkStorageRequest::type_url() {
            let body: fleet::ShrinkStorageRequest = body(any)?;
            let max = amount("max_bytes", body.max_bytes.into())?;
            Ok(Self::ShrinkStorage { max })
        } else if *url == fleet::CreateBackupRequest::type_url() {
            body::<fleet::CreateBackupRequest>(any).map(|_| Self::CreateBackup)
        } else if *url == fleet::VerifyBackupRequest::type_url() {
            let body: fleet::VerifyBackupRequest = body(any)?;
            let id = (!body.id.is_empty()).then(|| body.id.parse()).transpose()?;
            let read = body.read_percent.try_into()?;
            Ok(Self::VerifyBackup { id, read })
        } else if *url == fleet::RestoreBackupRequest::type_url() {
            restore(&body(any)?)
        } else if *url == fleet::DeleteBackupRequest::type_url() {
            let body: fleet::DeleteBackupRequest = body(any)?;
            match body.id.parse()? {
                BackupId::Latest => Err(RequestError::DeleteLatest),
                id @ BackupId::Id(_) => Ok(Self::DeleteBackup { id }),
            }
        } else {
            Err(RequestError::UnknownType {
                type_url: excerpt(url).into_owned(),
            })
        }
    }
}

fn restore(body: &fleet::RestoreBackupRequest) -> Result<Request, RequestError> {
    if body.paths.len() > PATHS_AT_MOST {
        return Err(RequestError::Paths {
            count: body.paths.len(),
        });
    }
    let paths = body
        .paths
        .iter()
        .map(|path| path.parse())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Request::RestoreBackup {
        id: body.id.parse()?,
        into: RestoreInto::of(&body.target, &paths, body.overwrite)?,
        paths,
    })
}

fn amount(field: &'static str, bytes: i128) -> Result<Bytes, RequestError> {
    match u64::try_from(bytes) {
        Ok(0) | Err(_) => Err(RequestError::Amount { field, bytes }),
        Ok(bytes) => Ok(Bytes(bytes)),
    }
}

/// The pool that a storage request names; None when it means the default one.
///
/// # Errors
/// When it is no pool's name.
pub fn pool_of(name: &str) -> Result<Option<PoolName>, InvalidId> {
    (!name.is_empty()).then(|| name.parse()).transpose()
}

/// The message as an operation stores and offers it.
pub fn pack<M: Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

fn body<M: Message + Default>(any: &Any) -> Result<M, RequestError> {
    M::decode(&*any.value).map_err(|source| RequestError::Malformed {
        type_url: any.type_url.clone(),
        source,
    })
}

/// Why a request is not an operation.
#[derive(Debug, Error)]
pub enum RequestError {
    /// Of another version of Hostler, perhaps.
    #[error("requests of type {type_url:?} are not known to this version")]
    UnknownType {
        /// The type, shortened.
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
    /// It names no valid backup, path or place.
    #[error(transparent)]
    Backup(#[from] InvalidBackup),
    /// An amount that changes nothing or the wrong way.
    #[error("{field} is {bytes}; give a number of bytes greater than zero")]
    Amount {
        /// The field.
        field: &'static str,
        /// What it holds.
        bytes: i128,
    },
    /// More paths than a person names.
    #[error(
        "{count} paths in one restore; at most {PATHS_AT_MOST} are allowed: name the directories above them"
    )]
    Paths {
        /// How many.
        count: usize,
    },
    /// A delete of whatever is newest.
    #[error("a backup is deleted by its id, not by \"latest\"; `hostler backups list` shows them")]
    DeleteLatest,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> HypervisorId {
        "hv-1".parse().unwrap()
    }

    /// One message of every kind, and what it asks for.
    fn samples() -> Vec<(Any, Request)> {
        vec![
            (
                pack(&operations::CreateHypervisorRequest { id: "hv-1".into() }),
                Request::CreateHypervisor(id()),
            ),
            (
                pack(&operations::DestroyHypervisorRequest { id: "hv-1".into() }),
                Request::DestroyHypervisor(id()),
            ),
            (
                pack(&operations::ExpandStorageRequest { min_bytes: i32::MAX }),
                Request::ExpandStorage {
                    min: Bytes(0x7fff_ffff),
                },
            ),
            (
                pack(&fleet::ShrinkStorageRequest {
                    max_bytes: u64::MAX,
                    ..Default::default()
                }),
                Request::ShrinkStorage { max: Bytes(u64::MAX) },
            ),
            (pack(&operations::CreateBackupRequest {}), Request::CreateBackup),
            (
                pack(&fleet::VerifyBackupRequest::default()),
                Request::VerifyBackup {
                    id: None,
                    read: ReadShare::ALL,
                },
            ),
            (
                pack(&fleet::RestoreBackupRequest {
                    id: "latest".into(),
                    paths: vec!["/a/b".into()],
                    ..Default::default()
                }),
                Request::RestoreBackup {
                    id: BackupId::Latest,
                    into: RestoreInto::Places,
                    paths: vec!["a/b".parse().unwrap()],
                },
            ),
            (
                pack(&fleet::DeleteBackupRequest {
                    id: "abcd".into(),
                    ..Default::default()
                }),
                Request::DeleteBackup {
                    id: BackupId::Id("abcd".into()),
                },
            ),
        ]
    }

    #[test]
    fn every_kind_survives_its_request() {
        let kinds: Vec<_> = samples()
            .into_iter()
            .map(|(any, request)| {
                assert_eq!(Request::of(&any).unwrap(), request);
                assert!(
                    any.type_url
                        .ends_with(&format!(".{}Request", request.kind().name())),
                    "{}",
                    any.type_url
                );
                request.kind()
            })
            .collect();
        assert_eq!(kinds, OperationKind::ALL);
    }

    #[test]
    fn an_amount_of_nothing_or_less_is_refused_by_its_field() {
        for bytes in [0, -1, i32::MIN] {
            let expand = pack(&operations::ExpandStorageRequest { min_bytes: bytes });
            let error = Request::of(&expand).unwrap_err().to_string();
            assert!(error.starts_with(&format!("min_bytes is {bytes};")), "{error}");
            let shrink = pack(&operations::ShrinkStorageRequest { max_bytes: bytes });
            assert!(
                Request::of(&shrink)
                    .unwrap_err()
                    .to_string()
                    .starts_with("max_bytes")
            );
        }
    }

    #[test]
    fn the_newest_backup_is_not_deleted_by_that_name() {
        let delete = pack(&fleet::DeleteBackupRequest {
            id: "latest".into(),
            ..Default::default()
        });
        assert!(matches!(Request::of(&delete), Err(RequestError::DeleteLatest)));
    }

    #[test]
    fn a_foreign_request_is_refused_by_its_type() {
        let foreign = Any {
            type_url: "type.googleapis.com/operations.v1.Unheard".into(),
            value: vec![],
        };
        assert!(Request::of(&foreign).unwrap_err().to_string().contains("Unheard"));
    }
}
