//! The real programs together, on libvirt's test driver: killed, stopped, and fed with bad configurations.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::process::Output;

use hostler_tests::programs::{Process, Site, command};
use hostler_tests::wait;

/// A hypervisor of kind host on the test driver's own network and pool. Its activation waits until the file
/// `go` is there, so that a test can do something in the middle of it.
fn slow_host(site: &Site) -> String {
    let script = site.write(
        "activation.sh",
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 9\ncase $1 in\nstart) touch begun; while [ ! -e go ]; do sleep 0.05; done; touch active ;;\nstop) rm -f active ;;\nstatus) test -e active ;;\nesac\n",
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.display();
    format!(
        "[[hypervisor]]\nid = 'hv1'\nkind = 'host'\nnetworks = [{{ name = 'default' }}]\npools = [{{ name = 'default-pool' }}]\nactivation_timeout = '60s'\nactivation = {{ type = 'exec', start = ['{script}', 'start'], stop = ['{script}', 'stop'], status = ['{script}', 'status'] }}\n"
    )
}

/// Somebody creates hv1, and its activation has begun.
async fn creating(site: &Site) -> Process {
    site.until_state("hv1", "out_of_service").await;
    let mut create = site.hostler("operator");
    let create = Process::start(
        create.args(["hypervisors", "create", "hv1"]),
        &site.path("create.log"),
    );
    wait::until("the activation begins", || async {
        site.path("begun").exists().then_some(())
    })
    .await;
    create
}

#[tokio::test]
async fn a_create_survives_kill_9_of_the_coordinator_and_the_client_is_attached_again() {
    let site = Site::make();
    site.configure_agent("test:///default", &slow_host(&site));
    let coordinator = site.coordinator().await;
    let _agent = site.agent();
    let mut create = creating(&site).await;
    coordinator.kill();
    let _coordinator = site.coordinator().await;
    site.write("go", "");
    let status = create.ended().await;
    assert_eq!(status.code(), Some(0), "{}", create.printed());
    site.until_state("hv1", "in_service").await;
    let (_, history, _) = site
        .run_hostler("viewer", &["--output", "json", "operations", "list"])
        .await;
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    assert_eq!(history["operations"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(history["operations"][0]["state"], "completed");
}

#[tokio::test]
async fn a_create_survives_kill_9_of_the_agent() {
    let site = Site::make();
    site.configure_agent("test:///default", &slow_host(&site));
    let _coordinator = site.coordinator().await;
    let agent = site.agent();
    let mut create = creating(&site).await;
    agent.kill();
    site.until_state("hv1", "unknown").await;
    site.write("go", "");
    let _agent = site.agent();
    let status = create.ended().await;
    assert_eq!(status.code(), Some(0), "{}", create.printed());
    site.until_state("hv1", "in_service").await;
}

#[tokio::test]
async fn a_host_that_is_revoked_in_the_middle_of_a_create_says_how_to_come_back_and_then_goes_on() {
    let site = Site::make();
    site.configure_agent("test:///default", &slow_host(&site));
    let _coordinator = site.coordinator().await;
    let agent = site.agent();
    let mut create = creating(&site).await;
    let revoke = ["agents", "revoke", "h1", "--reason", "stolen"];
    let (code, out, err) = site.run_hostler("admin", &revoke).await;
    assert_eq!(code, 0, "{out}{err}");
    for words in ["it has been revoked", "hostler tokens create"] {
        wait::until("the agent says what to do", || async {
            agent.printed().contains(words).then_some(())
        })
        .await;
    }
    let list = ["operations", "list", "--unended"];
    wait::until("the operation waits for the host", || async {
        let (_, out, _) = site.run_hostler("viewer", &list).await;
        out.contains("scheduled").then_some(())
    })
    .await;
    // The step that had begun ends; what follows it waits for the lease.
    site.write("go", "");
    wait::until("the step ends", || async {
        site.path("active").exists().then_some(())
    })
    .await;
    assert!(create.is_running(), "{}", create.printed());
    site.ca.issue_anew("agent/h1");
    let status = create.ended().await;
    assert_eq!(status.code(), Some(0), "{}", create.printed());
    site.until_state("hv1", "in_service").await;
}

#[tokio::test]
async fn sigterm_ends_the_coordinator_though_streams_are_open() {
    let site = Site::make();
    site.configure_agent("test:///default", &slow_host(&site));
    let mut coordinator = site.coordinator().await;
    let mut agent = site.agent();
    site.until_state("hv1", "out_of_service").await;
    let mut watch = site.hostler("viewer");
    let watching = Process::start(watch.args(["hypervisors", "watch"]), &site.path("watch.log"));
    wait::until("the watch shows hv1", || async {
        watching.printed().contains("hv1").then_some(())
    })
    .await;
    coordinator.signal("TERM");
    assert_eq!(
        coordinator.ended().await.code(),
        Some(0),
        "{}",
        coordinator.printed()
    );
    agent.signal("TERM");
    assert_eq!(agent.ended().await.code(), Some(0), "{}", agent.printed());
}

#[tokio::test]
async fn a_host_whose_libvirt_is_down_is_listed_with_the_error() {
    let site = Site::make();
    let missing = site.path("no-such-socket");
    let uri = format!("qemu+unix:///system?socket={}", missing.display());
    let guest = "[[hypervisor]]\nid = 'hv1'\nkind = 'guest'\ncpu = 2\nmemory_mb = 512\npool = 'p'\nbase_image = 'b'\n";
    site.configure_agent(&uri, guest);
    let _coordinator = site.coordinator().await;
    let _agent = site.agent();
    site.until_state("hv1", "unknown").await;
    let (code, out, err) = site.run_hostler("viewer", &["hypervisors", "show", "hv1"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("no-such-socket"), "the reason is shown: {out}");
    let (code, out, err) = site
        .run_hostler("operator", &["hypervisors", "create", "hv1"])
        .await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(format!("{out}{err}").contains("no-such-socket"), "{out}{err}");
}

#[tokio::test]
async fn an_activation_whose_status_stays_inactive_fails_the_create() {
    let site = Site::make();
    let host = "[[hypervisor]]\nid = 'hv1'\nkind = 'host'\nnetworks = [{ name = 'default' }]\nactivation = { type = 'exec', start = ['/bin/true'], stop = ['/bin/true'], status = ['/bin/false'] }\n";
    site.configure_agent("test:///default", host);
    let _coordinator = site.coordinator().await;
    let _agent = site.agent();
    site.until_state("hv1", "out_of_service").await;
    let (code, out, err) = site
        .run_hostler("operator", &["hypervisors", "create", "hv1"])
        .await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("its status did not become active"), "{out}{err}");
}

#[tokio::test]
async fn exit_codes_tell_apart_what_happened() {
    let site = Site::make();
    let coordinator = site.coordinator().await;
    let (code, _, err) = site
        .run_hostler("operator", &["hypervisors", "create", "nobody"])
        .await;
    assert_eq!(code, 1);
    assert!(err.contains("nobody is not enrolled"), "{err}");
    let (code, _, err) = site
        .run_hostler("operator", &["hypervisors", "create", "../x"])
        .await;
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = site
        .run_hostler("viewer", &["hypervisors", "create", "hv1"])
        .await;
    assert_eq!(code, 3);
    assert!(
        err.contains("needs a client certificate with the role operator"),
        "{err}"
    );
    coordinator.kill();
    let (code, _, err) = site
        .run_hostler("viewer", &["--timeout", "2s", "hypervisors", "list"])
        .await;
    assert_eq!(code, 3);
    assert!(err.contains("try:"), "{err}");
}

fn refused(program: &str, config: &std::path::Path) -> String {
    let Output { status, stderr, .. } = command(program).arg("--config").arg(config).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{stderr}");
    stderr
}

#[tokio::test]
async fn bad_configurations_end_both_programs_with_a_sentence_that_names_the_thing() {
    let site = Site::make();
    site.configure_agent("test:///default", &slow_host(&site));
    for (program, file) in [
        ("hostler-coordinator", "coordinator.toml"),
        ("hostler-agent", "agent.toml"),
    ] {
        let good = std::fs::read_to_string(site.path(file)).unwrap();
        let missing = refused(program, &site.path("nowhere.toml"));
        assert!(missing.contains("nowhere.toml"), "{missing}");
        let unknown = refused(
            program,
            &site.write("unknown.toml", &format!("colour = 'red'\n{good}")),
        );
        assert!(unknown.contains("colour"), "{unknown}");
        let (key, rest) = good.split_once("key = '").unwrap();
        let (path, rest) = rest.split_once('\'').unwrap();
        let no_key = site.write("no-key.toml", &format!("{key}key = '/nonexistent/x.key'{rest}"));
        let error = refused(program, &no_key);
        assert!(error.contains("/nonexistent/x.key"), "{error}");
        let loose = site.path("loose.key");
        std::fs::copy(path, &loose).unwrap();
        std::fs::set_permissions(&loose, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let loose_key = site.write("loose.toml", &format!("{key}key = '{}'{rest}", loose.display()));
        let error = refused(program, &loose_key);
        assert!(error.contains("chmod 0600"), "{error}");
    }
    let twice = format!(
        "{}{}",
        std::fs::read_to_string(site.path("agent.toml")).unwrap(),
        slow_host(&site)
    );
    let error = refused("hostler-agent", &site.write("twice.toml", &twice));
    assert!(error.contains("hv1"), "{error}");
    let _running = site.coordinator().await;
    let error = refused("hostler-coordinator", &site.path("coordinator.toml"));
    assert!(error.contains("in use by another coordinator"), "{error}");
}
