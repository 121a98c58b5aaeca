//! Storage pools and backups for people.

use comfy_table::{Cell, Color};
use hostler_common::bytes::Bytes;

use super::Terminal;
use super::sections::Page;
use super::sheet::{self, Column, Rank};
use super::storage_view::{Backup, Device, Pool, PoolState, Role};
use super::text::{escape, or_dash};

/// Digits of a backup's id in a list: as restic itself shows it, and enough to name one.
const ID_DIGITS: usize = 8;

const POOLS: [Column; 10] = [
    ("POOL", Rank::Name),
    ("HOST", Rank::Optional(3)),
    ("BACKEND", Rank::Optional(1)),
    ("SIZE", Rank::Optional(6)),
    ("USED", Rank::Optional(2)),
    ("FREE", Rank::Optional(5)),
    ("SPARE", Rank::Optional(4)),
    ("STATE", Rank::Whole),
    ("DEFAULT", Rank::Optional(0)),
    ("PROBLEM", Rank::Text(24)),
];

/// `hostler storage list`.
pub(crate) fn pools(list: &[Pool], terminal: Terminal) -> String {
    if list.is_empty() {
        return "no storage pool is enrolled".into();
    }
    let row = |it: &Pool| {
        vec![
            Cell::new(escape(&it.name)),
            Cell::new(escape(&it.host)),
            Cell::new(or_dash(escape(&it.backend))),
            Cell::new(Bytes(it.size_bytes)),
            Cell::new(Bytes(it.used_bytes)),
            Cell::new(Bytes(it.free_bytes)),
            Cell::new(Bytes(it.spare_bytes)),
            Cell::new(it.state.words()).fg(pool_colour(it.state)),
            Cell::new(if it.is_default { "yes" } else { "-" }),
            Cell::new(or_dash(escape(&it.problem))),
        ]
    };
    sheet::draw(&POOLS, list.iter().map(row).collect(), terminal)
}

const DEVICES: [Column; 6] = [
    ("DEVICE", Rank::Name),
    ("ROLE", Rank::Whole),
    ("CAPACITY", Rank::Optional(2)),
    ("SHARE", Rank::Optional(3)),
    ("ALLOCATED", Rank::Optional(1)),
    ("PROBLEM", Rank::Text(24)),
];

/// `hostler storage show`.
pub(crate) fn pool(it: &Pool, terminal: Terminal) -> String {
    let mut page = Page::default();
    let name = match it.is_default {
        true => format!("{} (the default)", escape(&it.name)),
        false => escape(&it.name),
    };
    page.field("pool", name);
    page.field("host", escape(&it.host));
    page.field("backend", escape(&it.backend));
    page.field("path", escape(&it.path));
    page.field("state", it.state.words());
    page.field("problem", escape(&it.problem));
    page.field("size", Bytes(it.size_bytes).exact());
    page.field("used", Bytes(it.used_bytes).exact());
    page.field("free", Bytes(it.free_bytes).exact());
    page.field(
        "spare",
        format!("{}, what an expand can add", Bytes(it.spare_bytes).exact()),
    );
    page.field(
        "reserve",
        format!("{} %, which a shrink leaves free", it.reserve_percent),
    );
    page.field(
        "smallest",
        match it.smallest_bytes {
            0 => "not known".into(),
            bytes => format!("{}, with what it holds now", Bytes(bytes).exact()),
        },
    );
    page.field("data", escape(&it.data_profile));
    page.field("metadata", escape(&it.metadata_profile));
    page.field(
        "backups",
        match it.backup_repository.is_empty() {
            true => "no repository is configured".into(),
            false => escape(&it.backup_repository),
        },
    );
    page.field("changed", it.changed.as_deref().unwrap_or(""));
    page.field("enrolled", it.enrolled.as_deref().unwrap_or(""));
    page.section("operations that have not ended");
    for id in &it.operation_ids {
        page.line(id);
    }
    let page = page.end();
    match it.devices.as_slice() {
        [] => page,
        devices => {
            let rows = devices.iter().map(device).collect();
            format!("{page}\n\n{}", sheet::draw(&DEVICES, rows, terminal))
        }
    }
}

fn device(it: &Device) -> Vec<Cell> {
    // Of a device that is no part of the pool nothing is the pool's.
    let of_pool = |bytes: u64| match it.role {
        Role::Spare | Role::Refused => "-".to_owned(),
        Role::Member | Role::Missing | Role::Unknown => Bytes(bytes).to_string(),
    };
    vec![
        Cell::new(escape(&it.path)),
        Cell::new(it.role.word()).fg(role_colour(it.role)),
        Cell::new(Bytes(it.capacity_bytes)),
        Cell::new(of_pool(it.share_bytes)),
        Cell::new(of_pool(it.allocated_bytes)),
        Cell::new(or_dash(escape(&it.problem))),
    ]
}

const BACKUPS: [Column; 5] = [
    ("ID", Rank::Whole),
    ("TIME", Rank::Whole),
    ("FILES", Rank::Optional(2)),
    ("SIZE", Rank::Optional(3)),
    ("OPERATION", Rank::Optional(1)),
];

/// `hostler backups list`.
pub(crate) fn backups(pool: &str, list: &[Backup], terminal: Terminal) -> String {
    if list.is_empty() {
        return format!("pool {} has no backups", escape(pool));
    }
    let row = |it: &Backup| {
        vec![
            Cell::new(short_id(it)),
            Cell::new(escape(&it.time)),
            Cell::new(it.files.map_or("-".into(), |files| files.to_string())),
            Cell::new(size(it)),
            Cell::new(or_dash(escape(&it.operation_id))),
        ]
    };
    sheet::draw(&BACKUPS, list.iter().map(row).collect(), terminal)
}

/// A backup in a sentence: `3f2a9c1e of 2026-11-21T22:26:40Z, 1200 files, 3.50 GiB`.
pub(crate) fn backup(it: &Backup) -> String {
    let files = it.files.map(|files| match files {
        1 => ", 1 file".to_owned(),
        files => format!(", {files} files"),
    });
    let bytes = it.bytes.map(|bytes| format!(", {}", Bytes(bytes)));
    format!(
        "{} of {}{}{}",
        short_id(it),
        escape(&it.time),
        files.unwrap_or_default(),
        bytes.unwrap_or_default()
    )
}

fn short_id(it: &Backup) -> String {
    escape(&it.id.chars().take(ID_DIGITS).collect::<String>())
}

fn size(it: &Backup) -> String {
    it.bytes.map_or("-".into(), |bytes| Bytes(bytes).to_string())
}

fn pool_colour(state: PoolState) -> Color {
    match state {
        PoolState::Ready => Color::Green,
        PoolState::Busy => Color::Cyan,
        PoolState::Unreachable => Color::Yellow,
        PoolState::NotUsable => Color::Red,
    }
}

fn role_colour(role: Role) -> Color {
    match role {
        Role::Member => Color::Green,
        Role::Spare | Role::Unknown => Color::Reset,
        Role::Refused => Color::Yellow,
        Role::Missing => Color::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const PIPE: Terminal = Terminal {
        width: None,
        colour: false,
        spinner: false,
    };

    const COLUMNS_80: Terminal = Terminal {
        width: Some(80),
        ..PIPE
    };

    #[test]
    fn pools_into_a_pipe_and_on_80_columns() {
        insta::assert_snapshot!("pools", pools(&samples::pools(), PIPE));
        insta::assert_snapshot!("pools_on_80_columns", pools(&samples::pools(), COLUMNS_80));
    }

    #[test]
    fn a_pool_is_shown_whole_with_its_devices() {
        insta::assert_snapshot!("pool", pool(&samples::pools()[0], PIPE));
        insta::assert_snapshot!("pool_on_80_columns", pool(&samples::pools()[0], COLUMNS_80));
        insta::assert_snapshot!("pool_in_trouble", pool(&samples::pools()[1], PIPE));
    }

    #[test]
    fn backups_into_a_pipe_and_on_80_columns() {
        insta::assert_snapshot!("backups", backups("fast", &samples::backups(), PIPE));
        insta::assert_snapshot!(
            "backups_on_80_columns",
            backups("fast", &samples::backups(), COLUMNS_80)
        );
    }

    #[test]
    fn a_backup_in_a_sentence_says_what_is_known() {
        let sentences: Vec<_> = samples::backups().iter().map(backup).collect();
        assert_eq!(
            sentences,
            [
                "3f2a9c1e of 2026-11-21T22:26:40Z, 1204 files, 3.50 GiB",
                "77aa00bb of 2026-11-22T22:26:40Z"
            ]
        );
    }

    #[test]
    fn empty_lists_say_so() {
        assert_eq!(pools(&[], PIPE), "no storage pool is enrolled");
        assert_eq!(backups("fast", &[], PIPE), "pool fast has no backups");
    }

    #[test]
    fn control_characters_of_a_host_never_reach_the_terminal() {
        let mut list = samples::pools();
        list[0].devices[0].path = "/dev/\x1b[2J".into();
        list[0].problem = "\x1b[2J".into();
        for drawn in [pools(&list, PIPE), pool(&list[0], PIPE)] {
            assert!(!drawn.contains('\x1b') && drawn.contains("\\u{1b}"), "{drawn}");
        }
    }
}
