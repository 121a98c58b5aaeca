//! What restic 0.14 prints with `--json`. Fields that are not used here, and messages of newer versions, are
//! passed over.

use hostler_common::error::excerpt;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One line of `restic backup --json`.
#[derive(Debug, Deserialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
pub(in super::super) enum BackupLine {
    Status(Status),
    Summary(Summary),
    #[serde(other)]
    Other,
}

/// How far a backup is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct Status {
    pub(in super::super) files_done: u64,
    pub(in super::super) bytes_done: u64,
}

/// What a backup came to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct Summary {
    /// New in the repository, before compression.
    pub(in super::super) data_added: u64,
}

/// What could not be read, on standard error.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Unread {
    pub(in super::super) message_type: String,
    #[serde(default)]
    pub(in super::super) item: String,
}

/// One of `restic snapshots --json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in super::super) struct Snapshot {
    pub(in super::super) id: String,
    pub(in super::super) time: String,
    #[serde(default)]
    pub(in super::super) hostname: String,
    #[serde(default)]
    pub(in super::super) tags: Option<Vec<String>>,
}

impl Snapshot {
    /// The first eight digits, as restic shows it.
    pub(in super::super) fn short(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }

    /// For a person who is to choose one.
    pub(in super::super) fn described(&self) -> String {
        let time = self.time.get(..19).unwrap_or(&self.time).replace('T', " ");
        format!("{} of {}", excerpt(self.short()), excerpt(&time))
    }

    /// The rest of the tag that begins with `prefix`.
    pub(in super::super) fn tag(&self, prefix: &str) -> Option<&str> {
        self.tags
            .iter()
            .flatten()
            .find_map(|tag| tag.strip_prefix(prefix))
    }

    /// When it was begun; the epoch when that cannot be told.
    pub(in super::super) fn unix_ms(&self) -> i64 {
        let time = OffsetDateTime::parse(&self.time, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
    }
}

/// One group of `restic forget --json`.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Forgotten {
    #[serde(default)]
    pub(in super::super) keep: Option<Vec<Snapshot>>,
    #[serde(default)]
    pub(in super::super) remove: Option<Vec<Snapshot>>,
}

/// One line of `restic ls --json`.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Node {
    pub(in super::super) struct_type: String,
    #[serde(rename = "type", default)]
    pub(in super::super) kind: String,
    #[serde(default)]
    pub(in super::super) path: String,
    #[serde(default)]
    pub(in super::super) size: u64,
}

/// `restic cat lock`.
#[derive(Debug, Deserialize)]
pub(in super::super) struct Lock {
    #[serde(default)]
    pub(in super::super) time: String,
    #[serde(default)]
    pub(in super::super) hostname: String,
    #[serde(default)]
    pub(in super::super) pid: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_restic_are_understood_and_unknown_ones_passed_over() {
        let line = |text: &str| serde_json::from_str::<BackupLine>(text).unwrap();
        let status = r#"{"message_type":"status","percent_done":0.2,"total_files":7,"bytes_done":309,"current_files":["/1"]}"#;
        assert!(matches!(
            line(status),
            BackupLine::Status(Status {
                bytes_done: 309,
                files_done: 0
            })
        ));
        let summary = r#"{"message_type":"summary","files_new":9,"data_added":530301,"snapshot_id":"efbdb63c","new":[]}"#;
        assert!(matches!(
            line(summary),
            BackupLine::Summary(Summary { data_added: 530_301 })
        ));
        assert!(matches!(
            line(r#"{"message_type":"verbose_status"}"#),
            BackupLine::Other
        ));
    }

    #[test]
    fn a_snapshot_has_its_time_with_an_offset_and_its_tags() {
        let text = r#"{"time":"2026-11-22T01:54:44.143099356+01:00","tree":"4a","paths":["/x"],"hostname":"h",
            "tags":["hostler","pool:x"],"id":"efbdb63c0a830d10","short_id":"efbdb63c"}"#;
        let snapshot: Snapshot = serde_json::from_str(text).unwrap();
        assert_eq!(snapshot.unix_ms(), 1_795_308_884_143);
        assert_eq!((snapshot.short(), snapshot.tag("pool:")), ("efbdb63c", Some("x")));
        let bare: Snapshot = serde_json::from_str(r#"{"id":"ab","time":"x","tags":null}"#).unwrap();
        assert_eq!((bare.unix_ms(), bare.short(), bare.tag("pool:")), (0, "ab", None));
    }
}
