//! The configuration: every key is read, and everything senseless is refused with a sentence.

use std::io::Write as _;

use super::*;

const HEAD: &str = r#"
coordinator = "127.0.0.1:1312"
state_dir = "/var/lib/hostler-agent"
[tls]
ca = "/etc/hostler/ca.crt"
certificate = "/etc/hostler/agent.crt"
key = "/etc/hostler/agent.key"
"#;

const HOST: &str = r#"
[[hypervisor]]
id = "demo-host"
kind = "host"
domain_type = "auto"
networks = [ { name = "hostler-demo", xml = "/etc/hostler/net.xml" }, { name = "default" } ]
pools = [ { name = "hostler-demo", xml = "/etc/hostler/pool.xml" } ]
free_disk = [ { path = "/var/lib/libvirt/images", at_least_mb = 1024 } ]
activation = { type = "exec", start = ["/x", "a"], stop = ["/x"], status = ["/x"] }
activation_timeout = "120s"
readiness = { type = "tcp", address = "127.0.0.1:16509" }
readiness_timeout = "60s"
drain_wait = "0s"
on_running_domains = "leave"
"#;

const GUEST: &str = r#"
[[hypervisor]]
id = "demo-guest-1"
kind = "guest"
domain_type = "qemu"
cpu = 1
memory_mb = 256
pool = "hostler-demo"
base_image = "base.qcow2"
networks = ["hostler-demo"]
pci_devices = ["0000:65:00.0"]
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd.img"
cmdline = "console=ttyS0"
serial_log = "/var/log/demo-guest-1.log"
readiness = { type = "serial", text = "hostler guest ready" }
readiness_timeout = "2m"
"#;

fn load(text: &str) -> Result<AgentConfig, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    AgentConfig::load(file.path()).map_err(|error| error.to_string())
}

/// Loads the whole example with `from` replaced, and says why it was refused.
fn refusal(from: &str, to: &str) -> String {
    let text = [HEAD, HOST, GUEST].concat();
    assert!(text.contains(from), "{from} is not in the example");
    load(&text.replacen(from, to, 1)).expect_err("it was taken")
}

fn refusal_of_added(text: &str) -> String {
    load(&[HEAD, HOST, GUEST, text].concat()).expect_err("it was taken")
}

#[test]
fn every_key_is_read() {
    let more = r#"
[libvirt]
uri = "test:///default"
call_timeout = "5s"
[[gpu]]
pci = "0000:65:00.0"
model = "A10"
[[gpu]]
device = "10de:2236"
model = "A10"
brand = "Other"
[[shared_storage]]
path = "/isard"
source = "nas:/isard"
fstype = "nfs4"
pool = "isard"
"#;
    let config = load(&[HEAD, HOST, GUEST, more].concat()).unwrap();
    assert_eq!(config.libvirt.call_timeout, Duration::from_secs(5));
    assert_eq!(config.gpus[0].brand, "NVIDIA");
    assert_eq!(config.gpus[1].device.unwrap().to_string(), "10de:2236");
    assert_eq!(config.shared_storage[0].fstype.as_deref(), Some("nfs4"));
    let [HypervisorConfig::Host(host), HypervisorConfig::Guest(guest)] = &config.hypervisors[..] else {
        panic!("{:?}", config.hypervisors);
    };
    assert_eq!(host.networks.len(), 2);
    assert_eq!(host.on_running_domains, OnRunningDomains::Leave);
    assert_eq!(guest.readiness_timeout, Duration::from_secs(120));
    assert_eq!(guest.pci_devices[0].to_string(), "0000:65:00.0");
    assert_eq!(guest.domain_type, DomainTypeChoice::Qemu);
}

#[test]
fn the_smallest_file_has_the_defaults() {
    let config = load(HEAD).unwrap();
    assert_eq!(config.libvirt.uri, "qemu:///system");
    assert_eq!(config.libvirt.call_timeout, Duration::from_secs(30));
    assert_eq!(config.log, LogFormat::Text);
    assert!(config.hypervisors.is_empty());
}

#[test]
fn an_unknown_key_is_refused_by_its_name_wherever_it_stands() {
    for (from, to) in [
        ("state_dir", "sate_dir = \"/x\"\nstate_dir"),
        ("ca = ", "cert_authority = \"/x\"\nca = "),
        ("drain_wait", "drain_weight = \"0s\"\ndrain_wait"),
        ("base_image", "base_picture = \"x\"\nbase_image"),
        ("name = \"default\"", "name = \"default\", bridge = \"br0\""),
        ("at_least_mb = 1024", "at_least_mb = 1024, at_most_mb = 1"),
        ("status = [\"/x\"]", "status = [\"/x\"], restart = [\"/x\"]"),
        (
            "text = \"hostler guest ready\"",
            "text = \"hostler guest ready\", regex = \"x\"",
        ),
    ] {
        let text = refusal(from, to);
        assert!(text.contains("unknown field"), "{to}: {text}");
    }
}

#[test]
fn two_hypervisors_of_one_id_are_refused() {
    let text = refusal("demo-guest-1\"", "demo-host\"");
    assert!(text.contains("two hypervisors have the id demo-host"), "{text}");
}

#[test]
fn a_duration_that_no_clock_can_add_is_refused_by_its_name() {
    for (key, text) in [
        (
            "libvirt.call_timeout",
            "[libvirt]\ncall_timeout = \"18446744073709551615s\"\n",
        ),
        ("drain_wait of the hypervisor b", "drain_wait = \"31days\"\n"),
        (
            "readiness_timeout of the hypervisor b",
            "readiness_timeout = \"100years\"\n",
        ),
    ] {
        let host = "[[hypervisor]]\nid = \"b\"\nkind = \"host\"\nnetworks = [ { name = \"n\" } ]\n";
        let text = match key.starts_with("libvirt") {
            true => load(&[HEAD, text].concat()),
            false => load(&[HEAD, host, text].concat()),
        };
        let text = text.expect_err("it was taken");
        assert!(text.contains(key) && text.contains("30 days"), "{text}");
    }
}

#[test]
fn two_hypervisors_of_kind_host_are_refused() {
    let text =
        refusal_of_added("[[hypervisor]]\nid = \"b\"\nkind = \"host\"\nnetworks = [ { name = \"n\" } ]\n");
    assert!(text.contains("demo-host and b are both of kind host"), "{text}");
}

#[test]
fn a_host_whose_state_nothing_tells_is_refused() {
    let bare = "[[hypervisor]]\nid = \"a\"\nkind = \"host\"\n";
    let text = load(&[HEAD, bare].concat()).unwrap_err();
    assert!(
        text.contains("nothing would tell whether it is in service"),
        "{text}"
    );
    let leaving = "networks = [ { name = \"n\" } ]\non_running_domains = \"leave\"\n";
    let text = load(&[HEAD, bare, leaving].concat()).unwrap_err();
    assert!(text.contains("without an activation"), "{text}");
}

#[test]
fn relative_paths_are_refused_wherever_they_stand() {
    for (from, to) in [
        ("\"/var/lib/hostler-agent\"", "\"lib\""),
        ("\"/etc/hostler/ca.crt\"", "\"ca.crt\""),
        ("\"/etc/hostler/net.xml\"", "\"net.xml\""),
        ("\"/var/lib/libvirt/images\"", "\"images\""),
        ("\"/boot/vmlinuz\"", "\"vmlinuz\""),
        ("\"/var/log/demo-guest-1.log\"", "\"guest.log\""),
        ("start = [\"/x\"", "start = [\"x\""),
    ] {
        let text = refusal(from, to);
        assert!(text.contains("is relative"), "{to}: {text}");
    }
}

#[test]
fn empty_and_impossible_values_are_refused_with_a_sentence() {
    for (from, to, says) in [
        ("stop = [\"/x\"]", "stop = []", "the command is empty"),
        ("stop = [\"/x\"]", "stop = [\"\"]", "the command is empty"),
        ("cpu = 1", "cpu = 0", "in `cpu`"),
        ("memory_mb = 256", "memory_mb = 0", "in `memory_mb`"),
        ("memory_mb = 256", "memory_mb = -1", "invalid value"),
        ("\"0000:65:00.0\"", "\"65:00.0\"", "write it as 0000:65:00.0"),
        ("\"0000:65:00.0\"", "\"0000:65:20.0\"", "not a PCI address"),
        ("\"0000:65:00.0\"", "\"0000:65:00.8\"", "not a PCI address"),
        ("\"0000:65:00.0\"", "\"0000:+5:00.0\"", "not a PCI address"),
        (
            "[\"0000:65:00.0\"]",
            "[\"0000:65:00.0\", \"0000:65:00.0\"]",
            "twice",
        ),
        ("serial_log", "template = \"/t\"\n#", "without a serial_log"),
        ("\"hostler guest ready\"", "\"\"", "empty text"),
        ("kernel = ", "#", "without a kernel"),
        ("console=ttyS0", "a\\nb", "control characters"),
        (
            "{ type = \"tcp\", address = \"127.0.0.1:16509\" }",
            "{ type = \"serial\", text = \"x\" }",
            "no serial line",
        ),
        ("\"127.0.0.1:16509\"", "\"localhost\"", "invalid socket address"),
        (
            "\"default\"",
            "\"hostler-demo\"",
            "names the network hostler-demo twice",
        ),
        ("\"default\"", "\"\"", "the network name \"\" is ill-formed"),
        (
            "pool = \"hostler-demo\"",
            "pool = \"a/b\"",
            "the pool name \"a/b\" is ill-formed",
        ),
        (
            "drain_wait = \"0s\"",
            "drain_wait = \"soon\"",
            "\"soon\" is not a duration",
        ),
        ("\"demo-host\"", "\"../x\"", "hypervisor id"),
        ("kind = \"host\"", "kind = \"cloud\"", "kind is \"cloud\""),
        ("\"127.0.0.1:1312\"", "\"http://127.0.0.1:1312\"", "http"),
    ] {
        let text = refusal(from, to);
        assert!(text.contains(says), "{to}: {text}");
    }
}

#[test]
fn a_unit_that_systemctl_would_read_as_an_option_is_refused() {
    let text = refusal(
        "{ type = \"exec\", start = [\"/x\", \"a\"], stop = [\"/x\"], status = [\"/x\"] }",
        "{ type = \"systemd\", unit = \"--force\" }",
    );
    assert!(text.contains("is not a unit's name"), "{text}");
}

#[test]
fn libvirt_gpu_and_storage_tables_are_checked() {
    for (added, says) in [
        ("[libvirt]\nuri = \"\"\n", "libvirt.uri is empty"),
        ("[libvirt]\ncall_timeout = \"0s\"\n", "call_timeout is zero"),
        ("[[gpu]]\nmodel = \"A10\"\n", "needs either pci"),
        (
            "[[gpu]]\npci = \"0000:65:00.0\"\ndevice = \"10de:2236\"\nmodel = \"A10\"\n",
            "and not both",
        ),
        ("[[gpu]]\npci = \"0000:65:00.0\"\nmodel = \"\"\n", "empty model"),
        (
            "[[gpu]]\ndevice = \"10de\"\nmodel = \"A10\"\n",
            "write it as 10de:2236",
        ),
        (
            "[[shared_storage]]\npath = \"/a\"\nsource = \"\"\n",
            "empty source",
        ),
        (
            "[[shared_storage]]\npath = \"/a\"\nsource = \"x\"\n[[shared_storage]]\npath = \"/a\"\nsource = \"y\"\n",
            "two shared_storage",
        ),
    ] {
        let text = refusal_of_added(added);
        assert!(text.contains(says), "{added}: {text}");
    }
}

const STORAGE: &str = r#"
[storage]
pool = "fast"
backend = "btrfs"
path = "/srv/isard"
spare_devices = ["/dev/disk/by-id/a", "/dev/disk/by-path/pci-*"]
reserve = "25%"
[storage.backup]
repository = "sftp:backup@nas:/isard"
password_file = "/etc/hostler/backup.password"
environment_file = "/etc/hostler/backup.env"
read_back = "100 %"
keep = { last = 3, yearly = 2 }
left_out = ["scratch", "/cache/"]
restore_into = ["/srv/restore"]
cache_dir = "/var/cache/x"
"#;

#[test]
fn every_key_of_a_pool_and_its_backups_is_read() {
    let storage = load(&[HEAD, STORAGE].concat()).unwrap().storage.unwrap();
    assert_eq!((storage.pool.as_str(), storage.reserve.percent()), ("fast", 25));
    assert_eq!(storage.spare_devices[1].as_str(), "/dev/disk/by-path/pci-*");
    let backup = storage.backup.unwrap();
    assert_eq!(backup.repository.expose(), "sftp:backup@nas:/isard");
    assert_eq!(backup.read_back.percent(), 100);
    assert_eq!(
        (backup.keep.last, backup.keep.daily, backup.keep.yearly),
        (3, 0, 2)
    );
    assert_eq!(backup.left_out[1].as_str(), "cache");
    assert_eq!(backup.cache_dir(Path::new("/s")), Path::new("/var/cache/x"));
}

#[test]
fn a_pool_has_defaults_for_all_but_its_path() {
    let storage = load(&[HEAD, "[storage]\npath = \"/p\"\n"].concat()).unwrap();
    let storage = storage.storage.unwrap();
    assert_eq!(
        (storage.pool.as_str(), storage.reserve.percent()),
        ("default", 10)
    );
    assert!(storage.spare_devices.is_empty() && storage.backup.is_none());
    let backup = "[storage]\npath = \"/p\"\n[storage.backup]\nrepository = \"/r\"\npassword_file = \"/w\"\n";
    let backup = load(&[HEAD, backup].concat())
        .unwrap()
        .storage
        .unwrap()
        .backup
        .unwrap();
    assert_eq!(backup.read_back.percent(), 5);
    assert_eq!(backup.keep, KeepConfig::default());
    assert_eq!(backup.cache_dir(Path::new("/s")), Path::new("/s/restic-cache"));
    assert!(load(HEAD).unwrap().storage.is_none());
}

#[test]
fn a_pool_or_a_backup_that_makes_no_sense_is_refused_with_a_sentence() {
    for (from, to, says) in [
        ("pool = \"fast\"", "pool = \"../x\"", "pool name"),
        ("\"btrfs\"", "\"zfs\"", "unknown variant `zfs`, expected `btrfs`"),
        ("\"/srv/isard\"", "\"srv\"", "is relative"),
        ("\"/srv/isard\"", "\"/\"", "storage.path is the root"),
        (
            "\"/dev/disk/by-id/a\"",
            "\"sdb\"",
            "not a device's path from the root",
        ),
        (
            "\"/dev/disk/by-id/a\"",
            "\"\"",
            "not a device's path from the root",
        ),
        (
            "\"/dev/disk/by-id/a\"",
            "\"/dev/../sdb\"",
            "not a device's path from the root",
        ),
        (
            "\"/dev/disk/by-id/a\"",
            "\"/dev/disk/by-path/pci-*\"",
            "pci-* twice",
        ),
        ("\"25%\"", "\"91 %\"", "a reserve of 91 % leaves no pool"),
        ("\"25%\"", "\"25\"", "write it as \"10 %\""),
        ("\"25%\"", "\"-1 %\"", "write it as \"10 %\""),
        ("\"25%\"", "25", "invalid type"),
        ("\"100 %\"", "\"0 %\"", "not a share of 1 % to 100 %"),
        ("\"100 %\"", "\"101 %\"", "not a share of 1 % to 100 %"),
        ("last = 3", "last = 0", "keep.last is 0"),
        ("last = 3", "last = -1", "invalid value"),
        ("yearly = 2", "yearly = 4000000000", "keep.yearly is 4000000000"),
        ("yearly = 2", "yeerly = 2", "unknown field `yeerly`"),
        ("\"scratch\"", "\"../scratch\"", "not a path in a pool"),
        ("\"/srv/restore\"", "\"/\"", "restore_into holds the root"),
        ("\"/srv/restore\"", "\"restore\"", "is relative"),
        (
            "\"/var/cache/x\"",
            "\"/srv/isard/cache\"",
            "cache_dir /srv/isard/cache lies in the pool",
        ),
        (
            "\"/etc/hostler/backup.password\"",
            "\"/srv/isard/pw\"",
            "password_file /srv/isard/pw lies in the pool",
        ),
        ("\"/etc/hostler/backup.password\"", "\"pw\"", "is relative"),
        (
            "\"sftp:backup@nas:/isard\"",
            "\"/srv/isard/b\"",
            "lies in the pool that it is to hold",
        ),
        (
            "\"sftp:backup@nas:/isard\"",
            "\"local:/srv/isard/b\"",
            "lies in the pool that it is to hold",
        ),
        (
            "\"sftp:backup@nas:/isard\"",
            "\"local:b\"",
            "neither a path from the root nor an address",
        ),
        (
            "\"sftp:backup@nas:/isard\"",
            "\"-r\"",
            "neither a path from the root nor an address",
        ),
        (
            "\"sftp:backup@nas:/isard\"",
            "\"\"",
            "neither a path from the root nor an address",
        ),
        (
            "\"sftp:backup@nas:/isard\"",
            "\"s3:\"",
            "neither a path from the root nor an address",
        ),
    ] {
        assert!(STORAGE.contains(from), "{from}");
        let text = load(&[HEAD, &STORAGE.replacen(from, to, 1)].concat()).expect_err(to);
        assert!(text.contains(says), "{to}: {text}");
    }
}

#[test]
fn a_repository_that_lies_in_the_pool_behind_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (pool, link) = (dir.path().join("pool"), dir.path().join("link"));
    std::fs::create_dir_all(pool.join("b")).unwrap();
    std::os::unix::fs::symlink(pool.join("b"), &link).unwrap();
    let storage = STORAGE.replace("/srv/isard", &pool.display().to_string());
    for behind in [link.display().to_string(), format!("local:{}", link.display())] {
        let config = storage.replacen("sftp:backup@nas:/isard", &behind, 1);
        let text = load(&[HEAD, &config].concat()).expect_err(&behind);
        assert!(text.contains("lies in the pool that it is to hold"), "{text}");
    }
}

#[test]
fn an_address_that_may_hold_a_password_is_not_shown() {
    let config = STORAGE.replacen("sftp:backup@nas:/isard", "rest:https://me:s3cret@nas/isard", 1);
    let config = load(&[HEAD, &config].concat()).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
}
