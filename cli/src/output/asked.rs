//! What an operation asks for beyond its kind and resource: amounts, a backup, paths. Read from the request that the
//! coordinator keeps; one that this version does not know has none.

use hostler_common::bytes::Bytes;
use hostler_common::operation::{BackupId, PoolPath, ReadShare, Request, RestoreInto};
use prost_types::Any;
use serde::Serialize;

/// What is asked for. In JSON only the fields that the kind has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Asked {
    /// To grow a pool by at least this.
    Expand { min_bytes: Bytes },
    /// To shrink a pool by at most this.
    Shrink { max_bytes: Bytes },
    /// To check a repository, and a backup in it.
    Verify {
        #[serde(skip_serializing_if = "Option::is_none")]
        backup_id: Option<BackupId>,
        read_percent: ReadShare,
    },
    /// To bring files back.
    Restore {
        backup_id: BackupId,
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        paths: Vec<PoolPath>,
        overwrite: bool,
    },
    /// To delete a backup.
    Delete { backup_id: BackupId },
}

impl Asked {
    /// From the request as it was received.
    pub(super) fn of(request: &Any) -> Option<Self> {
        Some(match Request::of(request).ok()? {
            Request::CreateHypervisor(_) | Request::DestroyHypervisor(_) | Request::CreateBackup => {
                return None;
            }
            Request::ExpandStorage { min } => Self::Expand { min_bytes: min },
            Request::ShrinkStorage { max } => Self::Shrink { max_bytes: max },
            Request::VerifyBackup { id, read } => Self::Verify {
                backup_id: id,
                read_percent: read,
            },
            Request::RestoreBackup { id, into, paths } => {
                let (target, overwrite) = match into {
                    RestoreInto::Directory(target) => (Some(target.display().to_string()), false),
                    RestoreInto::Places => (None, false),
                    RestoreInto::PlacesOverwriting => (None, true),
                };
                Self::Restore {
                    backup_id: id,
                    target,
                    paths,
                    overwrite,
                }
            }
            Request::DeleteBackup { id } => Self::Delete { backup_id: id },
        })
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Expand { min_bytes } => format!("at least {} more", min_bytes.exact()),
            Self::Shrink { max_bytes } => format!("at most {} less", max_bytes.exact()),
            Self::Verify {
                backup_id,
                read_percent,
            } => {
                let read = format!("{} % of the data read back", read_percent.percent());
                match backup_id {
                    Some(id) => format!("backup {id}, {read}"),
                    None => read,
                }
            }
            Self::Restore {
                backup_id,
                target,
                paths,
                overwrite,
            } => {
                let paths: Vec<_> = paths.iter().map(PoolPath::as_str).collect();
                let what = match paths.as_slice() {
                    [] => "everything".to_owned(),
                    paths => paths.join(", "),
                };
                let place = match (target, overwrite) {
                    (Some(target), _) => format!("into {target}"),
                    (None, false) => "to where it was".into(),
                    (None, true) => "to where it was, replacing what is there".into(),
                };
                format!("{what} of backup {backup_id}, {place}")
            }
            Self::Delete { backup_id } => format!("backup {backup_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostler_common::operation::pack;
    use hostler_common::rpc::hostler::fleet::v1 as fleet;
    use hostler_common::rpc::operations::v1 as operations;

    fn seen(request: &Any) -> (String, String) {
        let asked = Asked::of(request).unwrap();
        (asked.words(), serde_json::to_string(&asked).unwrap())
    }

    #[test]
    fn amounts_and_names_are_read_from_the_request() {
        let expand = pack(&operations::ExpandStorageRequest { min_bytes: 1 << 30 });
        let verify = pack(&fleet::VerifyBackupRequest {
            id: "latest".into(),
            read_percent: 5,
            ..Default::default()
        });
        let restore = pack(&fleet::RestoreBackupRequest {
            id: "abcd".into(),
            paths: vec!["a/b".into(), "c".into()],
            overwrite: true,
            ..Default::default()
        });
        let elsewhere = pack(&fleet::RestoreBackupRequest {
            id: "abcd".into(),
            target: "/srv/x".into(),
            ..Default::default()
        });
        let expected = [
            (
                expand,
                "at least 1073741824 bytes (1.00 GiB) more",
                r#"{"min_bytes":1073741824}"#,
            ),
            (
                verify,
                "backup latest, 5 % of the data read back",
                r#"{"backup_id":"latest","read_percent":5}"#,
            ),
            (
                restore,
                "a/b, c of backup abcd, to where it was, replacing what is there",
                r#"{"backup_id":"abcd","paths":["a/b","c"],"overwrite":true}"#,
            ),
            (
                elsewhere,
                "everything of backup abcd, into /srv/x",
                r#"{"backup_id":"abcd","target":"/srv/x","overwrite":false}"#,
            ),
        ];
        for (request, words, json) in expected {
            assert_eq!(seen(&request), (words.to_owned(), json.to_owned()));
        }
    }

    #[test]
    fn a_request_without_amounts_or_of_another_version_has_none() {
        assert_eq!(Asked::of(&pack(&operations::CreateBackupRequest {})), None);
        assert_eq!(
            Asked::of(&Any {
                type_url: "type.googleapis.com/x.Unheard".into(),
                value: vec![]
            }),
            None
        );
    }
}
