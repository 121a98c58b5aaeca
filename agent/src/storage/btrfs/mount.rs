//! Whether the pool is mounted as it should be, before anything touches it.
//!
//! It reads only what is mounted where; the one look at the mount itself comes last.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hostler_common::error::Retry;
use hostler_common::id::PoolName;

use crate::mount_table::{self, Mount, Writing};
use crate::storage::PoolFault;

/// The inode of every subvolume's root (BTRFS_FIRST_FREE_OBJECTID).
pub(super) const SUBVOLUME_ROOT: u64 = 256;

/// What the caller is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The part of the file system that is the pool, as `/` or `/isard`.
pub(super) fn check(pool: &PoolName, path: &Path, access: Access) -> Result<PathBuf, PoolFault> {
    let mounts = mount_table::mounts()
        .map_err(|source| PoolFault::caused("cannot read what is mounted", Retry::Later, source))?;
    let mount = judge(pool, path, access, &mounts)?;
    let cannot = |source| {
        let what = format!("cannot look at {}, where pool {pool} is", path.display());
        PoolFault::caused(what, Retry::Later, source)
    };
    match std::fs::metadata(path).map_err(cannot)?.ino() {
        SUBVOLUME_ROOT => Ok(mount.root.clone()),
        _ => Err(PoolFault::new(
            format!(
                "{} shows a folder within a btrfs; pool {pool} must be a whole subvolume: mount it with subvol=",
                path.display()
            ),
            Retry::Never,
        )),
    }
}

fn judge<'a>(
    pool: &PoolName,
    path: &Path,
    access: Access,
    mounts: &'a [Mount],
) -> Result<&'a Mount, PoolFault> {
    let shown = path.display();
    let never = |message: String| Err(PoolFault::new(message, Retry::Never));
    let Some(mount) = mount_table::at(mounts, path) else {
        return never(format!(
            "pool {pool} is not mounted: nothing is mounted on {shown}; mount it"
        ));
    };
    if mount.fstype != "btrfs" {
        let (fstype, source) = (&mount.fstype, &mount.source);
        return never(format!(
            "{shown} is {fstype} ({source}) and not the btrfs of pool {pool}; mount that there"
        ));
    }
    match (access, mount.writing) {
        (Access::Read, _) | (_, Writing::Possible) => Ok(mount),
        (Access::Write, Writing::NotHere) => never(format!(
            "pool {pool} is mounted read-only on {shown}; `mount -o remount,rw {shown}` makes it writable"
        )),
        (Access::Write, Writing::Nowhere) => never(format!(
            "the btrfs of pool {pool} on {shown} is read-only: mounted so, or the kernel stopped writing to it after \
             errors, which `dmesg` then tells; cure these, then unmount and mount it again"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(access: Access, fstype: &str, writing: Writing) -> Result<(), String> {
        let mounts = [Mount {
            device: 1,
            root: "/".into(),
            path: "/srv/isard".into(),
            fstype: fstype.into(),
            source: "/dev/sdb".into(),
            writing,
        }];
        let pool: PoolName = "default".parse().unwrap();
        let judged = judge(&pool, Path::new("/srv/isard"), access, &mounts);
        judged.map(|_| ()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn only_a_writable_btrfs_is_written_to() {
        let say = |access, fstype, writing| judged(access, fstype, writing).unwrap_err();
        assert_eq!(judged(Access::Write, "btrfs", Writing::Possible), Ok(()));
        assert_eq!(judged(Access::Read, "btrfs", Writing::Nowhere), Ok(()));
        assert_eq!(
            say(Access::Read, "ext4", Writing::Possible),
            "/srv/isard is ext4 (/dev/sdb) and not the btrfs of pool default; mount that there"
        );
        assert_eq!(
            say(Access::Write, "btrfs", Writing::NotHere),
            "pool default is mounted read-only on /srv/isard; `mount -o remount,rw /srv/isard` makes it writable"
        );
        let forced = say(Access::Write, "btrfs", Writing::Nowhere);
        assert!(
            forced.contains("after errors, which `dmesg` then tells"),
            "{forced}"
        );
    }

    #[test]
    fn a_folder_that_nothing_is_mounted_on_is_no_pool() {
        let pool: PoolName = "default".parse().unwrap();
        let fault = check(&pool, Path::new("/proc/self"), Access::Read).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "pool default is not mounted: nothing is mounted on /proc/self; mount it"
        );
    }
}
