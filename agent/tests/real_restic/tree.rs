//! What a directory holds, as text that can be compared: names, contents, links, owners, modes, times and
//! capabilities, which are extended attributes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use crate::rig::tool;

/// By path. What is in `.hostler` at the root does not count.
pub(crate) fn seen(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path == root.join(".hostler") {
                continue;
            }
            if path.symlink_metadata().unwrap().is_dir() {
                folders.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let mut text = format!("{:o} {}:{} ", meta.mode(), meta.uid(), meta.gid());
        let kind = meta.file_type();
        if kind.is_file() {
            let content = std::fs::read(&path).unwrap();
            write!(
                text,
                "{} bytes, crc {:08x} ",
                content.len(),
                crc32fast::hash(&content)
            )
            .unwrap();
            let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
            write!(text, "is {first:?} ").unwrap();
        } else if kind.is_symlink() {
            write!(text, "to {:?} ", std::fs::read_link(&path).unwrap()).unwrap();
        } else if kind.is_char_device() {
            write!(text, "device {} ", meta.rdev()).unwrap();
        }
        if !kind.is_dir() {
            write!(text, "at {}.{}", meta.mtime(), meta.mtime_nsec()).unwrap();
        }
        if kind.is_file() && path.ends_with("capable") {
            write!(
                text,
                "{:?}",
                tool("getcap", &["-n", path.to_str().unwrap()]).rsplit('/').next()
            )
            .unwrap();
        }
        all.insert(name, text);
    }
    all
}

/// Files as nobody likes them.
pub(crate) fn odd_files(root: &Path) {
    let path = |name: &str| root.join(name);
    std::fs::create_dir_all(path("desk tops/empty")).unwrap();
    std::fs::create_dir_all(path("desk tops/.hostler")).unwrap();
    for (name, text) in [
        ("-rf", "dash"),
        ("new\nline", "newline"),
        ("ünï→", "unicode"),
        ("g[lo]b*?{a,b}", "glob"),
        ("back\\slash", "backslash"),
        ("glob", "not the other one"),
        ("desk tops/a.qcow2", "an image"),
        ("desk tops/.hostler/deep", "not ours"),
        ("nothing", ""),
        ("capable", "with a capability"),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let latin1 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::write(root.join(latin1), "not UTF-8").unwrap();
    std::fs::hard_link(path("desk tops/a.qcow2"), path("linked")).unwrap();
    symlink("/etc/passwd", path("out")).unwrap();
    symlink("no/where", path("dangling")).unwrap();
    let sparse = std::fs::File::create(path("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    tool("mknod", &[path("null").to_str().unwrap(), "c", "1", "3"]);
    tool("setcap", &["cap_net_raw+ep", path("capable").to_str().unwrap()]);
    std::os::unix::fs::chown(path("glob"), Some(1234), Some(4321)).unwrap();
    let mode = std::fs::Permissions::from_mode(0o4750);
    std::fs::set_permissions(path("glob"), mode).unwrap();
    std::fs::set_permissions(path("desk tops"), std::fs::Permissions::from_mode(0o1770)).unwrap();
}

use std::os::unix::ffi::OsStrExt as _;
