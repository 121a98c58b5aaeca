//! Storage pools, backups and cancelled operations: the program against a coordinator that plays fixed parts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use support::{Asked, FIRM, HALF, ID, OTHER, Pki, play, report, run};

const NOTHING: &str = "/nothing/to/replace";

async fn asked(arguments: &[&str]) -> (String, Arc<Mutex<Asked>>) {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    let output = run(pki.hostler(&address, arguments)).await;
    let words = support::steady(&report(&output), &address, Path::new(NOTHING));
    (words, asked)
}

async fn hostler(arguments: &[&str]) -> String {
    asked(arguments).await.0
}

/// The lines of JSON that a run prints.
async fn json_lines(arguments: &[&str]) -> Vec<serde_json::Value> {
    let words = hostler(arguments).await;
    words
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(serde_json::Value::is_object)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_listed_and_shown() {
    insta::assert_snapshot!("pools", hostler(&["storage", "list"]).await);
    insta::assert_snapshot!("default_pool", hostler(&["storage", "show"]).await);
    insta::assert_snapshot!("unheard_pool", hostler(&["storage", "show", "unheard"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_as_json_are_one_document() {
    let words = hostler(&["storage", "list", "--json"]).await;
    let json = words.split("--- stdout\n").nth(1).unwrap();
    let json = json.split("--- stderr").next().unwrap();
    let document: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(document["pools"][1]["name"], "fast");
    assert_eq!(document["pools"][1]["free_bytes"], 5_u64 << 30);
    assert_eq!(document["pools"][1]["devices"][1]["role"], "spare");
    assert_eq!(document["pools"][0]["state"], "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expand_sends_the_size_and_the_reason_and_is_followed() {
    let (words, asked) = asked(&["storage", "expand", "1.5TB", "--reason", "für den Herbst"]).await;
    insta::assert_snapshot!("expand", words);
    let asked = asked.lock().unwrap();
    assert!(
        asked.of_pools[0].contains("min_bytes: 1500000000000"),
        "{:?}",
        asked.of_pools
    );
    assert_eq!(asked.reasons, ["für den Herbst"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let (words, asked) = asked(&["storage", "expand", "10GiB", "--pool", "fast", "--dry-run"]).await;
    insta::assert_snapshot!("expand_dry_run", words);
    let request = asked.lock().unwrap().of_pools[0].clone();
    assert!(
        request.contains("dry_run: true") && request.contains("pool: \"fast\""),
        "{request}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_that_fails_exits_with_1_and_says_where_to_look() {
    let arguments = ["storage", "shrink", "10GiB", "--pool", "full", "--dry-run"];
    insta::assert_snapshot!("shrink_dry_run_fails", hostler(&arguments).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_work_is_told_in_strides_without_a_terminal() {
    insta::assert_snapshot!("shrink", hostler(&["storage", "shrink", "10GiB"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_measure_is_a_line_of_json() {
    let lines = json_lines(&["storage", "shrink", "10GiB", "--json"]).await;
    let measures: Vec<_> = lines.iter().filter(|line| !line["measure"].is_null()).collect();
    assert_eq!(measures.len(), 98);
    let measure = &measures[50]["measure"];
    assert_eq!(measure["what"], "relocate /dev/sdb");
    assert_eq!(measure["percent"], 50);
    assert_eq!(measure["done_bytes"], 2_u64 << 30);
    assert_eq!(measure["bytes_per_second"], 120 << 20);
    assert_eq!(
        measures[50]["message"],
        "relocate /dev/sdb: 2.00 GiB of 4.00 GiB (50 %), 120.00 MiB/s, 16 s left"
    );
    assert!(lines[0].get("measure").is_none(), "{}", lines[0]);
    assert!(
        lines.iter().all(|line| line["operation_ids"][0] == ID),
        "{lines:?}"
    );
    assert_eq!(lines.last().unwrap()["state"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_an_operation_measures_too() {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    asked.lock().unwrap().watches = 1;
    let output = run(pki.hostler(&address, &["operations", "watch", HALF])).await;
    insta::assert_snapshot!("watch", report(&output));
    let output = run(pki.hostler(&address, &["operations", "watch", HALF, "--json"])).await;
    let words = String::from_utf8(output.stdout).unwrap();
    let mut lines = words
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert!(lines.any(|line| line["measure"]["percent"] == 97), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_bar_turns_and_its_last_measure_stays() {
    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let output = run(support::on_a_terminal(
        &pki.hostler(&address, &["storage", "shrink", "10GiB"]),
    ))
    .await;
    let words = report(&output);
    assert_eq!(output.status.code(), Some(0), "{words}");
    for kept in [
        "on host node1: scheduled\r\n",
        "ACTIVE     move data away from /dev/sdb\r\n",
        "ACTIVE     relocate /dev/sdb: 3.88 GiB of 4.00 GiB (97 %), 120.00 MiB/s, 1 s left\r\n",
        "ACTIVE     give /dev/sdb up\r\n",
        "COMPLETED  shrink of fast is done\r\n",
    ] {
        assert_eq!(words.matches(kept).count(), 1, "{kept:?} in {words:?}");
    }
    assert!(words.contains("░"), "{words:?}");
    assert_eq!(words.matches("relocate /dev/sdb: ").count(), 1, "{words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dumb_terminal_gets_lines_and_no_bar() {
    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let mut command = pki.hostler(&address, &["storage", "shrink", "10GiB"]);
    command.env("TERM", "dumb");
    let output = run(support::on_a_terminal(&command)).await;
    let words = report(&output);
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert_eq!(words.matches("relocate /dev/sdb: ").count(), 10, "{words:?}");
    assert!(
        !words.contains('\x1b') && !words.contains('\u{2588}'),
        "{words:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_taken_up_by_its_operation_and_the_pool_grows_once() {
    let (words, asked) = asked(&["storage", "expand", "10GiB", "--pool", "breaks"]).await;
    insta::assert_snapshot!("expand_breaks", words);
    assert_eq!(asked.lock().unwrap().of_pools.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_before_an_operation_is_named_is_not_asked_again() {
    let (words, asked) = asked(&["storage", "expand", "10GiB", "--pool", "mute"]).await;
    insta::assert_snapshot!("expand_mute", words);
    assert_eq!(asked.lock().unwrap().of_pools.len(), 1);
    let arguments = ["storage", "expand", "10GiB", "--pool", "mute", "--dry-run"];
    insta::assert_snapshot!("expand_mute_dry_run", hostler(&arguments).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_a_sentence_and_a_way_out() {
    let unheard = hostler(&["storage", "expand", "10GiB", "--pool", "unheard"]).await;
    insta::assert_snapshot!("expand_unheard", unheard);
    let away = hostler(&["backups", "list", "--pool", "away"]).await;
    insta::assert_snapshot!("backups_away", away);
    let denied = hostler(&["backups", "delete", "beef", "--yes", "--pool", "denied"]).await;
    insta::assert_snapshot!("delete_denied", denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn detaching_returns_once_the_operation_is_named() {
    let words = hostler(&["storage", "shrink", "10GiB", "--pool", "waits", "--detach"]).await;
    insta::assert_snapshot!("shrink_detached", words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_leaves_the_operation_and_tells_its_last_measure() {
    let words = hostler(&["backups", "create", "--pool", "waits", "--timeout", "1s"]).await;
    insta::assert_snapshot!("backup_timeout", words);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_listed_made_and_verified() {
    insta::assert_snapshot!("backups", hostler(&["backups", "list"]).await);
    let (words, made) = asked(&["backups", "create", "--reason", "before"]).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    assert_eq!(made.lock().unwrap().reasons, ["before"]);
    let (words, verified) = asked(&["backups", "verify", "latest", "--read", "5"]).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    let request = verified.lock().unwrap().of_pools[0].clone();
    assert!(
        request.contains("id: \"latest\"") && request.contains("read_percent: 5"),
        "{request}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_where_it_is_told() {
    let (words, everything) = asked(&["backups", "restore", "latest", "--to", "/srv/restored"]).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    let request = everything.lock().unwrap().of_pools[0].clone();
    assert!(
        request.contains("target: \"/srv/restored\"") && request.contains("paths: []"),
        "{request}"
    );
    let arguments = [
        "backups",
        "restore",
        "beef",
        "--path",
        "/a//b",
        "--path",
        "c",
        "--overwrite",
    ];
    let (words, files) = asked(&arguments).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    let request = files.lock().unwrap().of_pools[0].clone();
    assert!(
        request.contains("paths: [\"a/b\", \"c\"], overwrite: true"),
        "{request}"
    );
    let (words, refused) = asked(&["backups", "restore", "latest", "--to", "relative"]).await;
    insta::assert_snapshot!("restore_relative", words);
    assert!(refused.lock().unwrap().of_pools.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_without_a_yes() {
    let (words, unasked) = asked(&["backups", "delete", "beef"]).await;
    insta::assert_snapshot!("delete_without_terminal", words);
    assert!(unasked.lock().unwrap().of_pools.is_empty());
    insta::assert_snapshot!(
        "delete_latest",
        hostler(&["backups", "delete", "latest", "--yes"]).await
    );
    let (words, dry) = asked(&["backups", "delete", "beef", "--dry-run"]).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    assert!(dry.lock().unwrap().of_pools[0].contains("dry_run: true"));
    let (words, meant) = asked(&["backups", "delete", "beef", "--yes"]).await;
    assert!(words.starts_with("exit 0\n"), "{words}");
    assert!(meant.lock().unwrap().of_pools[0].contains("id: \"beef\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_backup_is_shown_before_it_is_deleted() {
    let pki = Pki::new();
    for (id, answer, exit, words) in [
        ("abcd1", "y\n", 0, "delete of fast is done"),
        ("abcd1", "n\n", 1, "not confirmed; nothing was deleted"),
        ("abcd1", "\n", 1, "not confirmed; nothing was deleted"),
        ("abcd", "y\n", 1, "2 backups of pool fast begin with abcd"),
        ("feed", "y\n", 1, "pool fast has no backup feed"),
    ] {
        let (address, asked) = play(&pki).await;
        let command = pki.hostler(&address, &["backups", "delete", id]);
        let output = run(support::answering(&command, answer)).await;
        let said = report(&output);
        assert_eq!(output.status.code(), Some(exit), "{said}");
        assert!(said.contains(words), "{said}");
        let deletes = asked.lock().unwrap().of_pools.clone();
        let deletes: Vec<_> = deletes
            .iter()
            .filter(|request| request.contains("Delete"))
            .collect();
        if exit == 0 {
            assert!(said.contains("Delete backup abcd1000 of "), "{said}");
            let whole = format!("{:0<64}", "abcd1");
            assert!(deletes[0].contains(&whole), "{deletes:?}");
        } else {
            assert!(deletes.is_empty(), "{deletes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_operation_is_followed_until_it_is_undone() {
    let (words, asked) = asked(&["operations", "cancel", ID, "--reason", "wrong size"]).await;
    insta::assert_snapshot!("cancel", words);
    assert_eq!(
        asked.lock().unwrap().cancels,
        [(ID.to_owned(), "wrong size".to_owned())]
    );
    insta::assert_snapshot!(
        "cancel_detached",
        hostler(&["operations", "cancel", ID, "--no-wait"]).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_comes_too_late_or_is_not_undone_exits_with_1() {
    insta::assert_snapshot!("cancel_too_late", hostler(&["operations", "cancel", OTHER]).await);
    insta::assert_snapshot!("cancel_half", hostler(&["operations", "cancel", HALF]).await);
    insta::assert_snapshot!("cancel_firm", hostler(&["operations", "cancel", FIRM]).await);
}
