//! The program against a coordinator that plays fixed parts, over real mutual TLS.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use support::{ID, OTHER, Pki, play, report, run};

const NOTHING: &str = "/nothing/to/replace";

async fn hostler(arguments: &[&str]) -> String {
    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let output = run(pki.hostler(&address, arguments)).await;
    support::steady(&report(&output), &address, Path::new(NOTHING))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_succeeds_exits_with_0() {
    insta::assert_snapshot!(hostler(&["hypervisors", "create", "good"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_exits_with_1_and_says_why() {
    insta::assert_snapshot!(hostler(&["hypervisors", "create", "bad"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hypervisor_named_twice_is_refused_before_anything_is_asked() {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    let output = run(pki.hostler(&address, &["hypervisors", "create", "hv1", "hv2", "hv1"])).await;
    let words = report(&output);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(
        words.contains("error: hv1 is named twice\ntry: the same command with each id once\n"),
        "{words}"
    );
    assert!(asked.lock().unwrap().creates.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn detaching_says_how_to_watch() {
    insta::assert_snapshot!(hostler(&["hypervisors", "create", "waits", "--detach"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn detaching_from_a_bulk_names_every_operation() {
    insta::assert_snapshot!(hostler(&["hypervisors", "create", "one", "two", "--detach"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_a_line_with_the_operation() {
    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let output = run(pki.hostler(&address, &["--output", "json", "hypervisors", "create", "good"])).await;
    assert_eq!(output.status.code(), Some(0), "{}", report(&output));
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["scheduled", "active", "completed"]);
    assert!(
        lines
            .iter()
            .all(|line| line["operation_ids"] == serde_json::json!([ID])),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_json_of_a_bulk_call_names_the_operation_that_it_is_about() {
    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let bulk = [
        "--output",
        "json",
        "hypervisors",
        "create",
        "one",
        "two",
        "--detach",
    ];
    let output = run(pki.hostler(&address, &bulk)).await;
    assert_eq!(output.status.code(), Some(0), "{}", report(&output));
    let mut named = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = line["message"].as_str().unwrap().split(':').next().unwrap();
        named.push((id.to_owned(), line["operation_ids"].clone()));
    }
    let expected = [
        ("create 2 hypervisors", vec![]),
        ("one", vec![ID]),
        ("two", vec![OTHER]),
    ];
    let expected = expected.map(|(about, ids)| (about.to_owned(), serde_json::json!(ids)));
    assert_eq!(named, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_taken_up_without_asking_again() {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    let output = run(pki.hostler(
        &address,
        &["hypervisors", "create", "breaks", "--reason", "für später"],
    ))
    .await;
    insta::assert_snapshot!(support::steady(&report(&output), &address, Path::new(NOTHING)));
    let asked = asked.lock().unwrap();
    assert_eq!(
        asked.creates,
        ["breaks"],
        "a second request could begin a second operation"
    );
    assert_eq!(asked.reasons, ["für später"]);
    assert_eq!(asked.watches, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_bulk_is_taken_up_by_its_operations() {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    let output = run(pki.hostler(&address, &["hypervisors", "create", "breaks", "two"])).await;
    insta::assert_snapshot!(support::steady(&report(&output), &address, Path::new(NOTHING)));
    assert_eq!(asked.lock().unwrap().creates, ["breaks", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_leaves_the_operation_and_says_how_to_watch_it() {
    insta::assert_snapshot!(hostler(&["hypervisors", "create", "waits", "--timeout", "1s"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_role_exits_with_3_and_names_the_role() {
    insta::assert_snapshot!(
        "denied_destroy",
        hostler(&["hypervisors", "destroy", "hv1"]).await
    );
    insta::assert_snapshot!(
        "denied_resolve",
        hostler(&["operations", "resolve", ID, "--note", "looked"]).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_exits_with_2_and_a_missing_thing_with_1() {
    assert!(
        hostler(&["hypervisors", "create", "malformed"])
            .await
            .starts_with("exit 2\n")
    );
    insta::assert_snapshot!(hostler(&["hypervisors", "show", "hv9"]).await);
    assert!(hostler(&["operations", "show", ID]).await.starts_with("exit 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_whole_and_ordered() {
    insta::assert_snapshot!(hostler(&["hypervisors", "list"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_lists_then_tells_what_differs_even_when_all_is_sent_again() {
    let words = hostler(&["hypervisors", "watch", "--timeout", "1s", "--output", "json"]).await;
    let events: Vec<_> = words
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|line| {
            let id = line["hypervisor"]["id"].as_str().or(line["id"].as_str());
            let id = id.unwrap_or("").to_owned();
            (line["event"].as_str().unwrap().to_owned(), id)
        })
        .collect();
    let expected = [
        ("present", "hv1"),
        ("present", "hv2"),
        ("synced", ""),
        ("changed", "hv2"),
        ("changed", "hv1"),
        ("gone", "hv2"),
    ];
    assert_eq!(
        events,
        expected.map(|(event, id)| (event.to_owned(), id.to_owned())),
        "{words}"
    );
    assert!(words.starts_with("exit 0\n"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_operations_are_followed_up_to_the_limit() {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    let output = run(pki.hostler(&address, &["operations", "list"])).await;
    let words = report(&output);
    assert!(words.contains(ID) && words.contains(OTHER), "{words}");
    let output = run(pki.hostler(&address, &["operations", "list", "--limit", "1"])).await;
    let words = report(&output);
    assert!(words.contains(OTHER) && !words.contains(ID), "{words}");
    assert_eq!(asked.lock().unwrap().pages, [50, 49, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_an_operation_shows_times_and_its_outcome() {
    let pki = Pki::new();
    let (address, asked) = play(&pki).await;
    asked.lock().unwrap().watches = 1;
    let output = run(pki.hostler(&address, &["operations", "watch", ID])).await;
    insta::assert_snapshot!(report(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_coordinator_refuses_exits_with_3() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let (address, _) = play(&pki).await;
    // Its own files fit each other; the coordinator's CA is another one.
    let output = run(foreign.hostler(&address, &["hypervisors", "list"])).await;
    let words = report(&output);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(
        words.contains("\ntry: ") && words.contains("certificate"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_leaves_the_operation_and_exits_with_130() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let mut command = pki.hostler(&address, &["hypervisors", "create", "waits"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = tokio::task::block_in_place(|| {
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut first)
            .unwrap();
        assert!(first.starts_with("SCHEDULED"), "{first}");
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        child.wait_with_output().unwrap()
    });
    insta::assert_snapshot!(report(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_finished_lines_stay_and_a_failure_is_told_once() {
    let pki = Pki::new();
    let (address, _) = play(&pki).await;
    let output = run(support::on_a_terminal(
        &pki.hostler(&address, &["hypervisors", "create", "good"]),
    ))
    .await;
    let words = report(&output);
    assert_eq!(output.status.code(), Some(0), "{words}");
    for kept in [
        "SCHEDULED  operation",
        "ACTIVE     define domain\r\n",
        "COMPLETED  in service\r\n",
    ] {
        assert!(words.contains(kept), "{kept:?} is not in {words:?}");
    }
    let output = run(support::on_a_terminal(
        &pki.hostler(&address, &["hypervisors", "create", "bad"]),
    ))
    .await;
    let words = report(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert_eq!(words.matches("step 'start' failed").count(), 1, "{words:?}");
    assert!(!words.contains("\x1b[2J"), "{words:?}");
}
