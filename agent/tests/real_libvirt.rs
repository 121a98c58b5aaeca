//! The steps of both kinds on a real libvirtd with QEMU: networks with bridges, volumes in files, domains that boot.
//!
//! The daemon is shared with whatever else runs on it, so every name is this process's own, and what is made is
//! removed also when a test fails. `HOSTLER_TEST_LIBVIRT` names another connection than `qemu:///system`.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use hostler_agent::hypervisor::Look;
use hostler_agent::libvirt::events::watch_domains;
use hostler_agent::libvirt::{Libvirt, LibvirtFault, Presence};
use hostler_common::error::Retry;
use hostler_common::rpc::hostler::agent::v1::Observed;
use support::{Fleet, config, guest_world, network, obey_the_laws, pool, run, silent};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

fn uri() -> String {
    std::env::var("HOSTLER_TEST_LIBVIRT").unwrap_or_else(|_| "qemu:///system".into())
}

/// Names of one test, its folder, and the end of all that it makes in libvirt.
struct Site {
    folder: TempDir,
    name: String,
    libvirt: Libvirt,
}

impl Site {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "hostler-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = tempfile::tempdir().unwrap();
        // QEMU runs as a user of its own and has to reach the images.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let site = Self {
            folder,
            name,
            libvirt: Libvirt::new(uri()),
        };
        let (images, name) = (site.images(), &site.name);
        std::fs::create_dir(&images).unwrap();
        boot_sector(&images.join("base.img"));
        let pool = format!(
            "<pool type='dir'><name>{name}</name><target><path>{}</path></target></pool>",
            images.display()
        );
        std::fs::write(site.path("pool.xml"), pool).unwrap();
        std::fs::write(
            site.path("net.xml"),
            format!("<network><name>{name}</name></network>"),
        )
        .unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn images(&self) -> PathBuf {
        self.path("images")
    }

    fn host(&self) -> String {
        let flag = self.path("active");
        let (name, net, pool, flag) = (
            &self.name,
            self.path("net.xml"),
            self.path("pool.xml"),
            flag.display(),
        );
        format!(
            "[[hypervisor]]\nid = \"{name}-host\"\nkind = \"host\"\non_running_domains = \"leave\"\n\
             networks = [ {{ name = \"{name}\", xml = \"{}\" }} ]\npools = [ {{ name = \"{name}\", xml = \"{}\" }} ]\n\
             activation = {{ type = \"exec\", start = [\"/usr/bin/touch\", \"{flag}\"], \
             stop = [\"/usr/bin/rm\", \"-f\", \"{flag}\"], status = [\"/usr/bin/test\", \"-e\", \"{flag}\"] }}\n",
            net.display(),
            pool.display()
        )
    }

    fn guest(&self) -> String {
        let name = &self.name;
        format!(
            "[[hypervisor]]\nid = \"{name}\"\nkind = \"guest\"\ncpu = 1\nmemory_mb = 64\npool = \"{name}\"\n\
             base_image = \"base.img\"\nnetworks = [\"{name}\"]\nserial_log = \"{}\"\n\
             readiness = {{ type = \"serial\", text = \"hostler guest ready\" }}\n",
            self.path("serial.log").display()
        )
    }

    fn fleet(&self) -> Fleet {
        self.fleet_at(&uri())
    }

    fn fleet_at(&self, uri: &str) -> Fleet {
        Fleet::new(&config(
            self.folder.path(),
            uri,
            &[self.host(), self.guest()].concat(),
        ))
    }

    fn world(&self) -> String {
        guest_world(&self.libvirt, &self.name, &self.name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What is not there is removed already.
        if let Ok(Some(uuid)) = self.libvirt.domain_named(&self.name.parse().unwrap()) {
            let _ = self.libvirt.destroy_domain(uuid);
            let _ = self.libvirt.undefine_domain(uuid);
        }
        let (network, pool) = (self.name.parse().unwrap(), self.name.parse().unwrap());
        let _ = self.libvirt.stop_network(&network);
        let _ = self.libvirt.undefine_network(&network);
        let _ = self.libvirt.stop_pool(&pool);
        let _ = self.libvirt.undefine_pool(&pool);
    }
}

/// A disk that boots on a PC: its first sector writes a line to the first serial port and halts.
fn boot_sector(path: &Path) {
    let mut sector = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x16, 0x7c, // mov si, the text
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz the end
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp lodsb
        0xfa, 0xf4, // the end: cli, hlt
        0xeb, 0xfd, // jmp hlt
    ];
    sector.extend(b"hostler guest ready\r\n\0");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&sector).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_host_and_a_guest_live_their_lives_by_the_laws() {
    let site = Site::new();
    let fleet = site.fleet();
    let (host, guest) = (format!("{}-host", site.name), site.name.clone());
    let flag = site.path("active");
    let host_world = || {
        let (network, pool) = (
            network(&site.libvirt, &site.name),
            pool(&site.libvirt, &site.name),
        );
        format!("{network:?} {pool:?} {}", flag.exists())
    };
    assert_eq!(host_world(), "Absent Absent false");
    obey_the_laws(&fleet.create(&host), host_world);
    assert_eq!(host_world(), "Active Active true");
    assert_eq!(fleet.observed(&host), Observed::InService);

    obey_the_laws(&fleet.create(&guest), || site.world());
    assert_eq!(fleet.observed(&guest), Observed::InService);
    let report = fleet.hypervisors.report(Look::Whole);
    let running = report.inventory.unwrap().running_domains;
    assert!(running.iter().any(|domain| domain.name == guest), "{running:?}");

    obey_the_laws(&fleet.destroy(&guest), || site.world());
    assert_eq!(fleet.observed(&guest), Observed::OutOfService);
    let left: Vec<_> = std::fs::read_dir(site.images())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(
        left,
        ["base.img"],
        "the overlay is gone and the base image is not"
    );

    // Domains of others on this libvirtd may keep network and pool active, never the activation.
    run(&fleet.destroy(&host)).unwrap();
    assert_eq!(fleet.observed(&host), Observed::OutOfService);
    assert_ne!(
        network(&site.libvirt, &site.name),
        Presence::Absent,
        "it stays defined"
    );
    assert_ne!(
        pool(&site.libvirt, &site.name),
        Presence::Absent,
        "it stays defined"
    );
}

#[test]
fn a_guest_boots_the_kernel_that_is_configured_from_an_image_that_appeared_later() {
    let image = std::env::var("HOSTLER_TEST_GUEST")
        .expect("set HOSTLER_TEST_GUEST to a folder that deploy/guest-image.sh made, as tests/run.sh does");
    let site = Site::new();
    for (file, to) in [("vmlinuz", site.path("vmlinuz")), ("initrd", site.path("initrd"))] {
        std::fs::copy(Path::new(&image).join(file), to).unwrap();
    }
    let guest = format!(
        "{}kernel = \"{}\"\ninitrd = \"{}\"\ncmdline = \"console=ttyS0\"\n",
        site.guest()
            .replace("base.img", "base.qcow2")
            .replace("memory_mb = 64", "memory_mb = 256"),
        site.path("vmlinuz").display(),
        site.path("initrd").display()
    );
    let fleet = Fleet::new(&config(
        site.folder.path(),
        &uri(),
        &[site.host(), guest].concat(),
    ));
    run(&fleet.create(&format!("{}-host", site.name))).unwrap();
    std::fs::copy(
        Path::new(&image).join("base.qcow2"),
        site.images().join("base.qcow2"),
    )
    .unwrap();
    run(&fleet.create(&site.name)).unwrap();
    let log = std::fs::read_to_string(site.path("serial.log")).unwrap();
    assert!(
        log.contains("label 'hostler-base'"),
        "its disk is the overlay: {log}"
    );
    assert_eq!(fleet.observed(&site.name), Observed::InService);
    run(&fleet.destroy(&site.name)).unwrap();
    assert_eq!(fleet.observed(&site.name), Observed::OutOfService);
}

#[test]
fn a_domain_that_ends_by_itself_is_seen_and_is_out_of_service() {
    let site = Site::new();
    let fleet = site.fleet();
    run(&fleet.create(&format!("{}-host", site.name))).unwrap();
    let (tell, told) = mpsc::channel();
    let watch = watch_domains(&uri(), move || tell.send(()).unwrap_or_default()).unwrap();
    told.recv_timeout(LONG).expect("the watch says that it is there");
    run(&fleet.create(&site.name)).unwrap();
    told.recv_timeout(LONG).expect("the start is told");
    let uuid = site
        .libvirt
        .domain_named(&site.name.parse().unwrap())
        .unwrap()
        .unwrap();
    site.libvirt.destroy_domain(uuid).unwrap();
    while fleet.observed(&site.name) != Observed::OutOfService {
        told.recv_timeout(LONG).expect("the end is told");
    }
    watch.stop();
}

#[test]
fn kvm_where_it_cannot_be_fails_with_the_reason_and_auto_emulates() {
    let site = Site::new();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let can = cpuinfo
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm")
        && std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
    let host = site
        .host()
        .replace("kind = \"host\"\n", "kind = \"host\"\ndomain_type = \"kvm\"\n");
    let fleet = Fleet::new(&config(site.folder.path(), &uri(), &host));
    let check = fleet.create(&format!("{}-host", site.name)).remove(0);
    let result = check.apply(check.look().unwrap(), &silent());
    match result {
        Ok(()) => assert!(can),
        Err(error) => assert!(!can && error.to_string().contains("cannot run by kvm"), "{error}"),
    }
}

/// Stands between a client and libvirtd, and can be gone.
struct Proxy {
    socket: PathBuf,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
}

impl Proxy {
    fn new(folder: &Path) -> Self {
        let socket = folder.join("libvirt-sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let proxy = Self {
            socket,
            open: Arc::new(AtomicBool::new(true)),
            streams: Arc::default(),
        };
        let (open, streams) = (proxy.open.clone(), proxy.streams.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let daemon = UnixStream::connect("/run/libvirt/libvirt-sock").unwrap();
                // Kept before it is asked whether the proxy is there, so that a cut at this moment meets it.
                streams
                    .lock()
                    .unwrap()
                    .extend([client.try_clone().unwrap(), daemon.try_clone().unwrap()]);
                if !open.load(Ordering::SeqCst) {
                    hang_up(&streams);
                    continue;
                }
                forward(client.try_clone().unwrap(), daemon.try_clone().unwrap());
                forward(daemon, client);
            }
        });
        proxy
    }

    fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket.display())
    }

    fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        hang_up(&self.streams);
    }

    fn restore(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

fn hang_up(streams: &Mutex<Vec<UnixStream>>) {
    for stream in streams.lock().unwrap().drain(..) {
        // An error means that the other side was faster.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn forward(mut from: UnixStream, mut to: UnixStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[test]
fn a_libvirtd_that_goes_away_and_comes_back_is_told_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::new(folder.path());
    let libvirt = Libvirt::new(proxy.uri());
    let version = libvirt.version().unwrap();
    let (tell, told) = mpsc::channel();
    let watch = watch_domains(&proxy.uri(), move || tell.send(()).unwrap_or_default()).unwrap();
    told.recv_timeout(LONG).expect("the watch says that it is there");

    proxy.cut();
    told.recv_timeout(LONG).expect("the loss is told");
    let fault = libvirt.version().unwrap_err();
    assert!(
        matches!(fault, LibvirtFault::ConnectionBroken { .. }),
        "{fault:?}"
    );
    assert_eq!(fault.retry(), Retry::ReadBack);

    proxy.restore();
    assert_eq!(libvirt.version().unwrap(), version);
    told.recv_timeout(LONG).expect("the return is told");
    watch.stop();
}

#[test]
fn a_create_that_loses_libvirtd_at_any_step_can_be_undone_when_it_is_back() {
    let site = Site::new();
    let proxy = Proxy::new(site.folder.path());
    let fleet = site.fleet_at(&proxy.uri());
    run(&fleet.create(&format!("{}-host", site.name))).unwrap();
    let nothing = site.world();
    let create = fleet.create(&site.name);
    // The last step waits for a guest that runs and needs no libvirt.
    for lost in 0..create.len() - 1 {
        let mut done = Vec::new();
        for (index, step) in create.iter().enumerate().take(lost + 1) {
            let before = step.look().unwrap();
            if index == lost {
                proxy.cut();
                let error = step.apply(before, &silent()).unwrap_err();
                assert_eq!(error.retry(), Retry::ReadBack, "{}: {error}", step.name());
                proxy.restore();
            } else {
                step.apply(before, &silent()).unwrap();
            }
            done.push(before);
        }
        for (step, before) in create.iter().zip(done).rev() {
            step.undo(before, &silent()).unwrap();
        }
        assert_eq!(site.world(), nothing, "lost at {}", create[lost].name());
    }
}
