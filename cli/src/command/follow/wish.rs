//! What a person asks for, as one request to the coordinator. It knows its words and its call, and sends nothing.

use hostler_common::error::Chain;
use hostler_common::id::HypervisorId;
use hostler_common::operation;
use hostler_common::rpc::hostler::fleet::v1::{
    CreateBackupRequest, DeleteBackupRequest, ExpandStorageRequest, RestoreBackupRequest,
    ShrinkStorageRequest, VerifyBackupRequest,
};
use tonic::metadata::BinaryMetadataValue;

use crate::connect::Call;
use crate::failure::Failure;

/// A change that a person asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) asked: Asked,
    pub(crate) reason: Option<String>,
}

/// For what.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// At least one.
    CreateHypervisors(Vec<HypervisorId>),
    /// At least one.
    DestroyHypervisors(Vec<HypervisorId>),
    ExpandStorage(ExpandStorageRequest),
    ShrinkStorage(ShrinkStorageRequest),
    CreateBackup(CreateBackupRequest),
    VerifyBackup(VerifyBackupRequest),
    RestoreBackup(RestoreBackupRequest),
    DeleteBackup(DeleteBackupRequest),
}

/// Whether anything is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earnest {
    /// It is to be done.
    Done,
    /// It is only to be said what would be done.
    DryRun,
}

impl Wish {
    /// The request with the reason beside it: binary metadata, since a reason may be in any language.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(reason) = self.reason.as_deref().filter(|reason| !reason.is_empty()) {
            request.metadata_mut().insert_bin(
                "hostler-reason-bin",
                BinaryMetadataValue::from_bytes(reason.as_bytes()),
            );
        }
        request
    }
}

impl Asked {
    /// Looks at a request as the coordinator will, so that a slip is told without one.
    ///
    /// # Errors
    /// When it holds a value that makes no sense.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let any = match self {
            // Their ids are valid by their type.
            Self::CreateHypervisors(_) | Self::DestroyHypervisors(_) => return Ok(()),
            Self::ExpandStorage(request) => operation::pack(request),
            Self::ShrinkStorage(request) => operation::pack(request),
            Self::CreateBackup(request) => operation::pack(request),
            Self::VerifyBackup(request) => operation::pack(request),
            Self::RestoreBackup(request) => operation::pack(request),
            Self::DeleteBackup(request) => operation::pack(request),
        };
        match operation::Request::of(&any) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Senseless {
                why: Chain(&error).to_string(),
            }),
        }
    }

    /// The hypervisors that it is about. Empty when it is about a pool.
    pub(super) fn hypervisors(&self) -> &[HypervisorId] {
        match self {
            Self::CreateHypervisors(ids) | Self::DestroyHypervisors(ids) => ids,
            Self::ExpandStorage(_)
            | Self::ShrinkStorage(_)
            | Self::CreateBackup(_)
            | Self::VerifyBackup(_)
            | Self::RestoreBackup(_)
            | Self::DeleteBackup(_) => &[],
        }
    }

    /// The same about other hypervisors.
    pub(super) fn about(self, ids: Vec<HypervisorId>) -> Self {
        match self {
            Self::CreateHypervisors(_) => Self::CreateHypervisors(ids),
            Self::DestroyHypervisors(_) => Self::DestroyHypervisors(ids),
            other => other,
        }
    }

    /// Whether anything is to change.
    pub(super) fn earnest(&self) -> Earnest {
        let dry_run = match self {
            Self::ExpandStorage(request) => request.dry_run,
            Self::ShrinkStorage(request) => request.dry_run,
            Self::DeleteBackup(request) => request.dry_run,
            Self::CreateHypervisors(_)
            | Self::DestroyHypervisors(_)
            | Self::CreateBackup(_)
            | Self::VerifyBackup(_)
            | Self::RestoreBackup(_) => false,
        };
        match dry_run {
            true => Earnest::DryRun,
            false => Earnest::Done,
        }
    }

    /// As `create of hv1, hv2` or `dry run of the expansion of pool fast`.
    pub(super) fn words(&self) -> String {
        let words = match self {
            Self::CreateHypervisors(ids) => format!("create of {}", several(ids)),
            Self::DestroyHypervisors(ids) => format!("destroy of {}", several(ids)),
            Self::ExpandStorage(request) => format!("expansion of {}", pool(&request.pool)),
            Self::ShrinkStorage(request) => format!("shrinking of {}", pool(&request.pool)),
            Self::CreateBackup(request) => format!("backup of {}", pool(&request.pool)),
            Self::VerifyBackup(request) => format!("verification of the backups of {}", pool(&request.pool)),
            Self::RestoreBackup(request) => {
                format!("restore of backup {} of {}", request.id, pool(&request.pool))
            }
            Self::DeleteBackup(request) => {
                format!("deletion of backup {} of {}", request.id, pool(&request.pool))
            }
        };
        match self.earnest() {
            Earnest::Done => words,
            Earnest::DryRun => format!("dry run of the {words}"),
        }
    }

    /// For error messages.
    pub(super) fn call(&self) -> Call {
        match self {
            Self::CreateHypervisors(ids) if ids.len() == 1 => Call::change("CreateHypervisor"),
            Self::CreateHypervisors(_) => Call::change("CreateHypervisors"),
            Self::DestroyHypervisors(ids) if ids.len() == 1 => Call::change("DestroyHypervisor"),
            Self::DestroyHypervisors(_) => Call::change("DestroyHypervisors"),
            Self::ExpandStorage(_) => Call::change("ExpandStorage").about_pools(),
            Self::ShrinkStorage(_) => Call::change("ShrinkStorage").about_pools(),
            Self::CreateBackup(_) => Call::change("CreateBackup").about_pools(),
            Self::VerifyBackup(_) => Call::change("VerifyBackup").about_backups(),
            Self::RestoreBackup(_) => Call::change("RestoreBackup").about_backups(),
            Self::DeleteBackup(_) => Call::administer("DeleteBackup").about_backups(),
        }
    }
}

fn pool(name: &str) -> String {
    match name {
        "" => "the default pool".into(),
        name => format!("pool {name}"),
    }
}

fn several(ids: &[HypervisorId]) -> String {
    let names: Vec<_> = ids.iter().take(5).map(HypervisorId::as_str).collect();
    let more = match ids.len().saturating_sub(5) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(reason: &str) -> Wish {
        let ids = (1..=7).map(|n| format!("hv{n}").parse().unwrap()).collect();
        Wish {
            asked: Asked::CreateHypervisors(ids),
            reason: Some(reason.into()),
        }
    }

    #[test]
    fn a_reason_in_any_language_arrives_unchanged() {
        for reason in ["disk swap", "Plattentausch für später", "two\nlines"] {
            let request = wish(reason).request(());
            let bytes = request
                .metadata()
                .get_bin("hostler-reason-bin")
                .unwrap()
                .to_bytes()
                .unwrap();
            assert_eq!(bytes, reason.as_bytes());
        }
        assert!(wish("").request(()).metadata().is_empty());
    }

    #[test]
    fn a_long_bulk_is_named_briefly() {
        assert_eq!(
            wish("").asked.words(),
            "create of hv1, hv2, hv3, hv4, hv5 and 2 more"
        );
    }

    #[test]
    fn a_dry_run_is_called_one() {
        let expand = |dry_run| {
            Asked::ExpandStorage(ExpandStorageRequest {
                pool: "fast".into(),
                min_bytes: 1,
                dry_run,
            })
        };
        assert_eq!(expand(false).words(), "expansion of pool fast");
        assert_eq!(expand(true).words(), "dry run of the expansion of pool fast");
        assert_eq!(expand(true).earnest(), Earnest::DryRun);
    }

    #[test]
    fn a_request_that_makes_no_sense_is_told_before_it_is_sent() {
        let newest = Asked::DeleteBackup(DeleteBackupRequest {
            id: "latest".into(),
            ..DeleteBackupRequest::default()
        });
        let why = newest.check().unwrap_err().to_string();
        assert!(why.contains("by its id"), "{why}");
        assert!(
            Asked::CreateBackup(CreateBackupRequest::default())
                .check()
                .is_ok()
        );
    }
}
