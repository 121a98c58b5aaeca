//! The steps of both kinds on libvirt's test driver, which keeps domains, networks, pools and volumes in memory.
//! A connection to `test:///FILE` is a world of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use hostler_agent::config::AgentConfig;
use hostler_agent::executor::step::{Before, Progress};
use hostler_agent::hypervisor::{Look, SetupError};
use hostler_agent::libvirt::events::watch_domains;
use hostler_agent::libvirt::{Libvirt, Presence};
use hostler_common::error::Retry;
use hostler_common::operation::Request;
use hostler_common::rpc::hostler::agent::v1::{HypervisorKind, Observed};
use support::{CancelledBy, Fleet, Lines, config, guest_world, names, network, obey_the_laws, pool, run};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(30);

const POOL: &str = "<pool type='dir'><name>images</name><target><path>/images</path></target>\
    <volume type='file'><name>base.qcow2</name><capacity>1048576</capacity>\
    <target><path>/images/base.qcow2</path><format type='qcow2'/></target></volume></pool>";

const NETWORK: &str = "<network><name>lan</name></network>";

const GUEST: &str = "[[hypervisor]]\nid = \"g1\"\nkind = \"guest\"\ncpu = 2\nmemory_mb = 64\n\
    pool = \"images\"\nbase_image = \"base.qcow2\"\nnetworks = [\"lan\"]\n";

/// A libvirt with `objects` in it, and the configuration `hypervisors`.
struct World {
    folder: TempDir,
    uri: String,
}

impl World {
    fn of(objects: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("node.xml");
        std::fs::write(&node, format!("<node>{objects}</node>")).unwrap();
        let uri = format!("test://{}", node.display());
        Self { folder, uri }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, hypervisors: &str) -> AgentConfig {
        config(self.folder.path(), &self.uri, hypervisors)
    }

    fn fleet(&self, hypervisors: &str) -> Fleet {
        Fleet::new(&self.config(hypervisors))
    }
}

/// A host with an object in each state, and an activation that is a file.
fn host(world: &World, more: &str) -> String {
    let net = world.path("net.xml");
    std::fs::write(&net, "<network><name>fresh</name></network>").unwrap();
    let flag = world.path("active");
    let flag = flag.display();
    format!(
        "[[hypervisor]]\nid = \"h1\"\nkind = \"host\"\n\
         networks = [ {{ name = \"lan\" }}, {{ name = \"fresh\", xml = \"{}\" }} ]\n\
         pools = [ {{ name = \"images\" }} ]\n\
         activation = {{ type = \"exec\", start = [\"/usr/bin/touch\", \"{flag}\"], \
         stop = [\"/usr/bin/rm\", \"-f\", \"{flag}\"], status = [\"/usr/bin/test\", \"-e\", \"{flag}\"] }}\n\
         readiness = {{ type = \"exec\", command = [\"/usr/bin/true\"] }}\n\
         free_disk = [ {{ path = \"/\", at_least_mb = 1 }} ]\n{more}",
        net.display()
    )
}

fn host_world(fleet: &Fleet, flag: &Path) -> String {
    format!(
        "lan {:?}, fresh {:?}, images {:?}, active {}",
        network(&fleet.libvirt, "lan"),
        network(&fleet.libvirt, "fresh"),
        pool(&fleet.libvirt, "images"),
        flag.exists()
    )
}

#[test]
fn the_steps_of_a_guest_obey_the_laws_and_its_state_follows() {
    let world = World::of(&[POOL, NETWORK].concat());
    let fleet = world.fleet(GUEST);
    let seen = || guest_world(&fleet.libvirt, "images", "g1");
    let nothing = seen();
    assert_eq!(fleet.observed("g1"), Observed::OutOfService);

    let create = fleet.create("g1");
    assert_eq!(
        names(&create),
        [
            "check what g1 needs",
            "create volume hostler-g1.qcow2",
            "define domain g1",
            "start domain g1"
        ]
    );
    obey_the_laws(&create, seen);
    assert_eq!(fleet.observed("g1"), Observed::InService);
    assert!(
        seen().contains("backing: Some(\"/images/base.qcow2\")"),
        "{}",
        seen()
    );

    let destroy = fleet.destroy("g1");
    assert_eq!(
        names(&destroy),
        [
            "check that g1 can be removed",
            "stop domain g1",
            "undefine domain g1",
            "delete volume hostler-g1.qcow2"
        ]
    );
    obey_the_laws(&destroy, seen);
    assert_eq!(fleet.observed("g1"), Observed::OutOfService);
    assert_eq!(seen(), nothing);
}

#[test]
fn creating_what_is_there_and_destroying_what_is_not_changes_nothing() {
    let world = World::of(&[POOL, NETWORK].concat());
    let fleet = world.fleet(GUEST);
    let seen = || guest_world(&fleet.libvirt, "images", "g1");
    obey_the_laws(&fleet.destroy("g1"), seen);
    run(&fleet.create("g1")).unwrap();
    let there = seen();
    obey_the_laws(&fleet.create("g1"), seen);
    assert_eq!(seen(), there);
}

#[test]
fn the_steps_of_a_host_obey_the_laws_and_its_state_follows() {
    let world = World::of(&[POOL, NETWORK].concat());
    let fleet = world.fleet(&host(&world, ""));
    let flag = world.path("active");
    let seen = || host_world(&fleet, &flag);
    // One of each: defined and inactive, absent, and active.
    fleet.libvirt.stop_network(&"lan".parse().unwrap()).unwrap();
    assert_eq!(seen(), "lan Inactive, fresh Absent, images Active, active false");
    assert_eq!(fleet.observed("h1"), Observed::OutOfService);

    let create = fleet.create("h1");
    assert_eq!(
        names(&create),
        [
            "check what h1 needs",
            "activate network lan",
            "activate network fresh",
            "activate pool images",
            "activate h1",
            "wait until h1 is ready"
        ]
    );
    obey_the_laws(&create, seen);
    assert_eq!(seen(), "lan Active, fresh Active, images Active, active true");
    assert_eq!(fleet.report("h1").detail, "");
    assert_eq!(fleet.observed("h1"), Observed::InService);

    let destroy = fleet.destroy("h1");
    assert_eq!(
        names(&destroy),
        [
            "drain h1",
            "deactivate h1",
            "deactivate pool images",
            "deactivate network fresh",
            "deactivate network lan"
        ]
    );
    obey_the_laws(&destroy, seen);
    assert_eq!(
        seen(),
        "lan Inactive, fresh Inactive, images Inactive, active false"
    );
    assert_eq!(fleet.observed("h1"), Observed::OutOfService);
}

const RUNNING: &str =
    "<domain type='test'><name>vm-{n}</name><memory>1024</memory><os><type>hvm</type></os></domain>";

#[test]
fn a_host_with_running_domains_refuses_to_go_and_names_them() {
    let domains: String = (1..=7).map(|n| RUNNING.replace("{n}", &n.to_string())).collect();
    let world = World::of(&[POOL, NETWORK, &domains].concat());
    let fleet = world.fleet(&host(&world, ""));
    run(&fleet.create("h1")).unwrap();
    let error = run(&fleet.destroy("h1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "7 domains still run (vm-1, vm-2, vm-3, vm-4, vm-5, …); stop or move them first"
    );
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(fleet.observed("h1"), Observed::InService);
}

#[test]
fn a_host_waits_for_its_domains_to_end_and_then_goes() {
    let world = World::of(&[POOL, NETWORK, &RUNNING.replace("{n}", "1")].concat());
    let fleet = world.fleet(&host(&world, "drain_wait = \"60s\"\n"));
    run(&fleet.create("h1")).unwrap();
    let libvirt = fleet.libvirt.clone();
    let uuid = libvirt.domain_named(&"vm-1".parse().unwrap()).unwrap().unwrap();
    let progress = Progress::to(Lines(move |line: String| {
        assert_eq!(line, "waiting up to 60s for 1 running domains to end");
        libvirt.destroy_domain(uuid).unwrap();
    }));
    let drain = fleet.destroy("h1").remove(0);
    drain.apply(drain.look().unwrap(), &progress).unwrap();
    run(&fleet.destroy("h1")).unwrap();
    assert_eq!(fleet.observed("h1"), Observed::OutOfService);
}

#[test]
fn a_host_that_waits_for_its_domains_hears_of_a_cancel() {
    let world = World::of(&[POOL, NETWORK, &RUNNING.replace("{n}", "1")].concat());
    let fleet = world.fleet(&host(&world, "drain_wait = \"1h\"\n"));
    run(&fleet.create("h1")).unwrap();
    let drain = fleet.destroy("h1").remove(0);
    let progress = Progress::to(CancelledBy("ann"));
    let error = drain.apply(drain.look().unwrap(), &progress).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(error.to_string(), "cancelled by ann");
}

#[test]
fn what_is_waited_for_until_it_is_ready_hears_of_a_cancel() {
    let world = World::of(&[POOL, NETWORK].concat());
    let probe =
        "readiness = { type = \"exec\", command = [\"/usr/bin/false\"] }\nreadiness_timeout = \"1h\"\n";
    for (hypervisor, id) in [(host(&world, ""), "h1"), (GUEST.to_owned(), "g1")] {
        let without = |line: &&str| !line.starts_with("readiness");
        let lines: Vec<_> = hypervisor.lines().filter(without).collect();
        let fleet = world.fleet(&format!("{}\n{probe}", lines.join("\n")));
        let mut steps = fleet.create(id);
        let ready = steps.pop().unwrap();
        run(&steps).unwrap();
        let before = ready.look().unwrap();
        let error = ready
            .apply(before, &Progress::to(CancelledBy("ann")))
            .unwrap_err();
        assert!(error.is_cancelled(), "{id}: {error}");
    }
}

#[test]
fn a_host_that_may_leave_domains_goes_out_of_service_and_keeps_what_they_need() {
    let world = World::of(&[POOL, NETWORK, &RUNNING.replace("{n}", "1")].concat());
    let fleet = world.fleet(&host(&world, "on_running_domains = \"leave\"\n"));
    run(&fleet.create("h1")).unwrap();
    run(&fleet.destroy("h1")).unwrap();
    let flag = world.path("active");
    assert_eq!(
        host_world(&fleet, &flag),
        "lan Active, fresh Active, images Active, active false"
    );
    let report = fleet.report("h1");
    assert_eq!(report.observed(), Observed::OutOfService);
    assert!(
        report.detail.contains("still active: network lan"),
        "{}",
        report.detail
    );
}

#[test]
fn a_partly_active_host_is_reported_with_what_is_missing() {
    let world = World::of(&[POOL, NETWORK].concat());
    let fleet = world.fleet(&host(&world, ""));
    run(&fleet.create("h1")).unwrap();
    fleet.libvirt.stop_network(&"lan".parse().unwrap()).unwrap();
    let report = fleet.report("h1");
    assert_eq!(report.observed(), Observed::Unknown);
    assert_eq!(
        report.detail,
        "the activation is active but network lan is inactive"
    );
    run(&fleet.create("h1")).unwrap();
    assert_eq!(fleet.observed("h1"), Observed::InService);
}

#[test]
fn a_network_that_nobody_defines_fails_by_name() {
    let world = World::of(POOL);
    let fleet = world.fleet(&host(&world, ""));
    let error = run(&fleet.create("h1")).unwrap_err();
    assert!(
        error.to_string().starts_with("network lan is not defined"),
        "{error}"
    );
}

#[test]
fn a_full_disk_and_a_missing_mount_stop_a_host_before_anything_changed() {
    let world = World::of(&[POOL, NETWORK].concat());
    let full = host(&world, "").replace("at_least_mb = 1 ", "at_least_mb = 999999999999 ");
    let error = run(&world.fleet(&full).create("h1")).unwrap_err();
    assert!(
        error.to_string().contains("MB free and needs 999999999999"),
        "{error}"
    );

    let storage = format!(
        "[[shared_storage]]\npath = \"{}\"\nsource = \"nas:/isard\"\n",
        world.folder.path().display()
    );
    let fleet = world.fleet(&[storage, host(&world, "")].concat());
    let error = run(&fleet.create("h1")).unwrap_err();
    assert!(error.to_string().contains("nothing is mounted on"), "{error}");
    let shared = fleet.report("h1").inventory.unwrap().shared_storage;
    assert!(
        !shared[0].usable && shared[0].problem.contains("nothing is mounted"),
        "{shared:?}"
    );
}

#[test]
fn a_domain_of_another_owner_is_never_touched() {
    let foreign = RUNNING.replace("vm-{n}", "g1");
    let world = World::of(&[POOL, NETWORK, &foreign].concat());
    let fleet = world.fleet(GUEST);
    let before = guest_world(&fleet.libvirt, "images", "g1");
    for steps in [fleet.create("g1"), fleet.destroy("g1")] {
        let error = run(&steps).unwrap_err();
        assert!(error.to_string().contains("that Hostler did not make"), "{error}");
        for step in &steps {
            // An unwinding operation must not trip over it either.
            step.undo(Before::Absent, &support::silent()).unwrap();
        }
    }
    assert_eq!(guest_world(&fleet.libvirt, "images", "g1"), before);
    let report = fleet.report("g1");
    assert_eq!(report.observed(), Observed::Unknown);
    assert!(report.detail.contains("did not make"), "{}", report.detail);
}

#[test]
fn a_volume_of_the_overlays_name_that_is_not_ours_is_refused_by_name_and_kept() {
    let foreign = "<volume type='file'><name>hostler-g1.qcow2</name><capacity>1048576</capacity>\
        <target><path>/images/hostler-g1.qcow2</path><format type='qcow2'/></target></volume></pool>";
    let world = World::of(&[&POOL.replace("</pool>", foreign), NETWORK].concat());
    let fleet = world.fleet(GUEST);
    let before = guest_world(&fleet.libvirt, "images", "g1");
    for steps in [fleet.create("g1"), fleet.destroy("g1")] {
        let error = run(&steps).unwrap_err().to_string();
        assert!(
            error.contains("a volume hostler-g1.qcow2 that is no overlay of /images/base.qcow2"),
            "{error}"
        );
    }
    // The first step refuses, and so does the last by itself, as after a crash.
    let last = fleet.destroy("g1").pop().unwrap();
    let error = last.apply(Before::Inactive, &support::silent()).unwrap_err();
    assert!(error.to_string().contains("hostler-g1.qcow2"), "{error}");
    assert_eq!(guest_world(&fleet.libvirt, "images", "g1"), before);
}

#[test]
fn a_guest_whose_base_image_was_changed_or_is_gone_can_still_be_removed() {
    let second = "<volume type='file'><name>second.qcow2</name><capacity>1048576</capacity>\
        <target><path>/images/second.qcow2</path><format type='qcow2'/></target></volume></pool>";
    let world = World::of(&[&POOL.replace("</pool>", second), NETWORK].concat());
    let first = world.fleet(GUEST);
    run(&first.create("g1")).unwrap();
    let changed = Fleet::on(
        first.libvirt.clone(),
        &world.config(&GUEST.replace("base.qcow2", "second.qcow2")),
    );
    run(&changed.destroy("g1")).unwrap();
    assert!(guest_world(&first.libvirt, "images", "g1").contains("volume None, domain None"));

    run(&first.create("g1")).unwrap();
    let base = "base.qcow2".parse().unwrap();
    first
        .libvirt
        .delete_volume(&"images".parse().unwrap(), &base)
        .unwrap();
    run(&first.destroy("g1")).unwrap();
    assert!(guest_world(&first.libvirt, "images", "g1").contains("volume None, domain None"));
}

#[test]
fn a_guest_without_what_it_needs_fails_by_name_before_anything_changed() {
    for (from, to, says) in [
        ("base.qcow2", "missing.qcow2", "holds no volume missing.qcow2"),
        ("\"images\"", "\"nowhere\"", "pool nowhere is not defined"),
        ("memory_mb = 64", "memory_mb = 99999999", "MB of memory available"),
        (
            "cpu = 2",
            "cpu = 2\nkernel = \"/nonexistent/vmlinuz\"",
            "cannot read /nonexistent/vmlinuz",
        ),
        (
            "cpu = 2",
            "cpu = 2\nserial_log = \"/nonexistent/g1.log\"",
            "the folder of the serial log /nonexistent/g1.log",
        ),
    ] {
        let world = World::of(&[POOL, NETWORK].concat());
        let fleet = world.fleet(&GUEST.replace(from, to));
        let error = run(&fleet.create("g1")).unwrap_err();
        assert!(error.to_string().contains(says), "{to}: {error}");
        assert!(guest_world(&fleet.libvirt, "images", "g1").contains("volume None, domain None"));
    }
}

#[test]
fn an_inactive_pool_stops_a_removal_before_the_guest_is_stopped() {
    let world = World::of(&[POOL, NETWORK].concat());
    let fleet = world.fleet(GUEST);
    run(&fleet.create("g1")).unwrap();
    fleet.libvirt.stop_pool(&"images".parse().unwrap()).unwrap();
    let error = run(&fleet.destroy("g1")).unwrap_err();
    assert!(
        error.to_string().contains("the pool images is not active"),
        "{error}"
    );
    assert_eq!(fleet.observed("g1"), Observed::InService);
}

#[test]
fn a_template_that_libvirt_refuses_fails_with_its_words() {
    let world = World::of(&[POOL, NETWORK].concat());
    let template = world.path("domain.xml");
    let incomplete = "<domain type='test'><name>{{ name }}</name><uuid>{{ uuid }}</uuid></domain>";
    std::fs::write(&template, incomplete).unwrap();
    let own = format!("{GUEST}template = \"{}\"\n", template.display());
    let error = run(&world.fleet(&own).create("g1")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot define domain g1: libvirt refuses"),
        "{error}"
    );

    std::fs::write(&template, "<domain type='test'><name>{{ name }}</name></domain>").unwrap();
    let error = run(&world.fleet(&own).create("g1")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the template of domain g1 defines another domain: it has no <uuid>"),
        "{error}"
    );

    std::fs::write(&template, "<domain>{{ nmae }}</domain>").unwrap();
    let error = run(&world.fleet(&own).create("g1")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the template of domain g1 cannot be filled in"),
        "{error}"
    );

    std::fs::write(&template, "{% if %}").unwrap();
    let setup = hostler_agent::hypervisor::Hypervisors::new(&world.config(&own), Libvirt::new(&*world.uri));
    assert!(matches!(setup.err(), Some(SetupError::Template { .. })));
}

#[test]
fn missing_programs_and_files_are_refused_at_the_start() {
    let world = World::of("");
    let refusal = |hypervisors: &str| {
        let hypervisors = hostler_agent::hypervisor::Hypervisors::new(
            &world.config(hypervisors),
            Libvirt::new(&*world.uri),
        );
        hostler_common::error::Chain(&hypervisors.err().unwrap()).to_string()
    };
    let text = refusal(&host(&world, "").replace("/usr/bin/touch", "/nonexistent/touch"));
    assert!(text.contains("/nonexistent/touch cannot be executed"), "{text}");
    let text = refusal(&host(&world, "").replace("net.xml", "no.xml"));
    assert!(text.contains("no.xml for hypervisor h1"), "{text}");
    let text = refusal(&host(&world, "").replace("fresh", "other"));
    assert!(
        text.contains("is not the definition of network other: it names fresh"),
        "{text}"
    );
}

#[test]
fn a_serial_line_tells_that_a_guest_is_ready() {
    let world = World::of(&[POOL, NETWORK].concat());
    let log = world.path("serial.log");
    let guest = format!(
        "{GUEST}serial_log = \"{}\"\nreadiness = {{ type = \"serial\", text = \"guest ready\" }}\n\
         readiness_timeout = \"300ms\"\n",
        log.display()
    );
    let fleet = world.fleet(&guest);
    std::fs::write(&log, "booting\n").unwrap();
    let error = run(&fleet.create("g1")).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("within 300ms; its last line was \"booting\""),
        "{error}"
    );
    std::fs::write(&log, "booting\nguest ready\n").unwrap();
    run(&fleet.create("g1")).unwrap();

    let uuid = fleet
        .libvirt
        .domain_named(&"g1".parse().unwrap())
        .unwrap()
        .unwrap();
    fleet.libvirt.destroy_domain(uuid).unwrap();
    std::fs::write(&log, "kernel panic\n").unwrap();
    let ready = fleet.create("g1").pop().unwrap();
    let error = ready
        .apply(ready.look().unwrap(), &support::silent())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("stopped before it was ready; its last line was \"kernel panic\""),
        "{error}"
    );
}

#[test]
fn a_host_whose_libvirt_is_down_is_still_reported() {
    let world = World::of("");
    let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let fleet = Fleet::new(&config(
        world.folder.path(),
        uri,
        &[GUEST, &host(&world, "")].concat(),
    ));
    let report = fleet.hypervisors.report(Look::Whole);
    let inventory = report.inventory.unwrap();
    assert!(inventory.cpu_threads > 0 && inventory.memory_mb > 0);
    let libvirt = inventory.libvirt.unwrap();
    assert_eq!((libvirt.uri.as_str(), libvirt.version.as_str()), (uri, ""));
    assert!(
        libvirt.problem.contains("/nonexistent/libvirt-sock"),
        "{}",
        libvirt.problem
    );
    for hypervisor in report.hypervisors {
        assert_eq!(hypervisor.observed(), Observed::Unknown);
        assert!(
            hypervisor.detail.contains("is libvirtd running?"),
            "{}",
            hypervisor.detail
        );
    }
    let error = run(&fleet.create("g1")).unwrap_err();
    assert_eq!(error.retry(), Retry::ReadBack, "{error}");
}

#[test]
fn a_host_of_which_libvirt_was_never_asked_is_reported_with_all_its_hypervisors() {
    let world = World::of("");
    let shared = "[[shared_storage]]\npath = \"/isard\"\nsource = \"nas:/isard\"\n";
    let fleet = world.fleet(&[GUEST, &host(&world, ""), shared].concat());
    let report = fleet.hypervisors.unseen();
    let inventory = report.inventory.unwrap();
    assert!(inventory.cpu_threads > 0 && inventory.memory_mb > 0);
    assert_eq!(inventory.libvirt.unwrap().problem, "it has not been asked yet");
    let storage = &inventory.shared_storage[0];
    assert_eq!((storage.path.as_str(), storage.usable), ("/isard", false));
    assert_eq!(report.hypervisors.len(), 2);
    for hypervisor in report.hypervisors {
        assert_eq!(hypervisor.observed(), Observed::Unknown, "{}", hypervisor.id);
    }
}

#[test]
fn a_quick_look_keeps_what_the_last_whole_one_saw_of_shared_storage() {
    let world = World::of("");
    let shared = "[[shared_storage]]\npath = \"/nonexistent\"\nsource = \"nas:/isard\"\n";
    let fleet = world.fleet(&[GUEST, shared].concat());
    let problem = |look| {
        let inventory = fleet.hypervisors.report(look).inventory.unwrap();
        inventory.shared_storage[0].problem.clone()
    };
    assert_eq!(problem(Look::Quick), "it has not been checked yet");
    let seen = problem(Look::Whole);
    assert_eq!(seen, "nothing is mounted on /nonexistent; mount nas:/isard");
    assert_eq!(problem(Look::Quick), seen);
}

#[test]
fn a_report_is_the_same_until_something_changes() {
    let domains: String = (1..=9)
        .rev()
        .map(|n| RUNNING.replace("{n}", &n.to_string()))
        .collect();
    let world = World::of(&[POOL, NETWORK, &domains].concat());
    let fleet = world.fleet(&[GUEST, &host(&world, "")].concat());
    let report = fleet.hypervisors.report(Look::Whole);
    assert_eq!(report, fleet.hypervisors.report(Look::Whole));
    let inventory = report.inventory.as_ref().unwrap();
    let names: Vec<_> = inventory
        .running_domains
        .iter()
        .map(|domain| domain.name.as_str())
        .collect();
    assert!(names.is_sorted() && names.len() == 9, "{names:?}");
    assert!(!inventory.libvirt.as_ref().unwrap().version.is_empty());
    let guest = &report.hypervisors[0];
    assert_eq!(guest.kind(), HypervisorKind::Guest);
    let has = guest.inventory.as_ref().unwrap();
    assert_eq!((has.cpu_threads, has.memory_mb), (2, 64));
    assert_eq!(report.hypervisors[1].inventory.as_ref(), Some(inventory));

    run(&fleet.create("g1")).unwrap();
    assert_ne!(report, fleet.hypervisors.report(Look::Whole));
}

fn gpu(name: &str, bus: u8, class: &str, vendor: u16, product: u16, label: &str, more: &str) -> String {
    format!(
        "<device><name>{name}</name><capability type='pci'><class>{class}</class><domain>0</domain><bus>{bus}</bus>\
         <slot>0</slot><function>0</function><product id='{product:#06x}'>{label}</product>\
         <vendor id='{vendor:#06x}'>vendor</vendor>{more}</capability></device>"
    )
}

#[test]
fn gpus_are_found_among_the_hosts_devices_and_given_to_their_guest() {
    let function = "<capability type='phys_function'><address domain='0x0000' bus='0x65' slot='0x00' function='0x0'/>\
                    </capability>";
    let devices = [
        gpu(
            "pci_t4",
            0x65,
            "0x030200",
            0x10de,
            0x1eb8,
            "TU104GL [Tesla T4]",
            "",
        ),
        gpu(
            "pci_a16",
            0x17,
            "0x030200",
            0x10de,
            0x25b6,
            "GA107GL [A2 / A16]",
            "",
        ),
        gpu(
            "pci_vf",
            0x66,
            "0x030200",
            0x10de,
            0x2236,
            "GA102GL [A10]",
            function,
        ),
        gpu(
            "pci_bmc",
            3,
            "0x030000",
            0x1a03,
            0x2000,
            "ASPEED Graphics Family",
            "",
        ),
        gpu("pci_nic", 4, "0x020000", 0x8086, 0x1572, "X710", ""),
    ];
    let world = World::of(&[POOL, NETWORK, &devices.concat()].concat());
    let named = "[[gpu]]\npci = \"0000:17:00.0\"\nmodel = \"A16\"\n";
    let guest = format!("{GUEST}pci_devices = [\"0000:65:00.0\"]\n");
    let fleet = world.fleet(&[named, &guest].concat());
    let report = fleet.hypervisors.report(Look::Whole);
    let gpus: Vec<_> = report.inventory.unwrap().gpus;
    let seen: Vec<_> = gpus
        .iter()
        .map(|gpu| (gpu.pci_address.as_str(), gpu.brand.as_str(), gpu.model.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("0000:17:00.0", "NVIDIA", "A16"),
            ("0000:65:00.0", "NVIDIA", "T4")
        ]
    );
    let given = report.hypervisors[0].inventory.as_ref().unwrap();
    assert_eq!(given.gpus, gpus[1..]);
}

#[test]
fn a_hypervisor_that_is_not_configured_has_no_plan() {
    let world = World::of("");
    let fleet = world.fleet("");
    let error = fleet
        .hypervisors
        .plan(&Request::CreateHypervisor("gone".parse().unwrap()))
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("gone is not in the agent's configuration"),
        "{error}"
    );
}

#[test]
fn a_domain_that_starts_or_ends_is_told_at_once_until_the_watch_stops() {
    // Only the default world is shared between connections.
    let libvirt = Libvirt::new("test:///default");
    libvirt.version().unwrap();
    let (tell, told) = mpsc::channel();
    let watch = watch_domains("test:///default", move || tell.send(()).unwrap()).unwrap();
    told.recv_timeout(LONG).expect("the watch says that it is there");
    let uuid = uuid::Uuid::from_u128(77);
    libvirt
        .define_domain(&format!(
            "<domain type='test'><name>watched</name><uuid>{uuid}</uuid><memory>1024</memory>\
             <os><type>hvm</type></os></domain>"
        ))
        .unwrap();
    told.recv_timeout(LONG).expect("defined");
    libvirt.start_domain(uuid).unwrap();
    told.recv_timeout(LONG).expect("started");
    libvirt.destroy_domain(uuid).unwrap();
    told.recv_timeout(LONG).expect("ended");
    watch.stop();
    libvirt.undefine_domain(uuid).unwrap();
    // Whatever came before the stop is still in the channel; then it is closed, since the watch is gone.
    while told.recv_timeout(LONG).is_ok() {}
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn an_object_that_is_absent_is_told_from_one_that_is_inactive() {
    let world = World::of(&[POOL, NETWORK].concat());
    let libvirt = Libvirt::new(&*world.uri);
    assert_eq!(network(&libvirt, "lan"), Presence::Active);
    assert_eq!(network(&libvirt, "none"), Presence::Absent);
    assert_eq!(pool(&libvirt, "none"), Presence::Absent);
}
