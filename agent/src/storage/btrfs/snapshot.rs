//! A read-only picture of the whole pool at one instant, for a backup.
//!
//! The kernel writes out what programs wrote before, then takes the picture in one transaction; so nothing is synced
//! here, and what a program synced before is in it with all that was synced before that. A nested subvolume shows in
//! it as an empty folder: the invariant is that none is left out without a person having said so.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::error::Retry;

use super::Btrfs;
use super::mount::{self, Access};
use crate::storage::PoolFault;
use crate::storage::pool::Snapshot;

/// Where ours lie, in the pool.
const FOLDER: &str = ".hostler";
const NAME: &str = "backup";

/// Taking and deleting wait for a commit, and that for all that is dirty.
const COMMITTED_WITHIN: Duration = Duration::from_secs(30 * 60);

/// How many forgotten subvolumes are named.
const NAMED: usize = 5;

impl Btrfs {
    fn snapshot_path(&self) -> PathBuf {
        self.settings.path.join(FOLDER).join(NAME)
    }

    /// Takes the snapshot, or accepts the one that is there.
    pub(super) fn snapshot(&self) -> Result<Snapshot, PoolFault> {
        let within = mount::check(&self.settings.pool, &self.settings.path, Access::Write)?;
        if let Some(there) = self.snapshot_there()? {
            return Ok(there);
        }
        self.nothing_is_forgotten(&within)?;
        if !self.has_folder()? {
            self.make_folder()?;
        }
        let path = self.snapshot_path();
        let (pool, shown) = (self.path(), path.display().to_string());
        let arguments = ["subvolume", "snapshot", "-r", "--", &pool, &shown].map(str::to_owned);
        let taken = self.btrfs.command(arguments).succeed(COMMITTED_WITHIN);
        taken.map_err(|fault| {
            let what = format!("cannot take a snapshot of pool {}", self.settings.pool);
            PoolFault::caused(what, fault.retry(), fault)
        })?;
        // One may have been made since it was looked at.
        if let Err(forgotten) = self.nothing_is_forgotten(&within) {
            self.delete_snapshot()?;
            return Err(forgotten);
        }
        self.snapshot_there()?.ok_or_else(|| {
            let what = format!("the snapshot {shown} was taken and is not there");
            PoolFault::new(what, Retry::ReadBack)
        })
    }

    /// The snapshot, when there is one.
    pub(super) fn snapshot_there(&self) -> Result<Option<Snapshot>, PoolFault> {
        if !self.has_folder()? {
            return Ok(None);
        }
        let path = self.snapshot_path();
        let shown = path.display().to_string();
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let what = format!("cannot look at {shown}");
                return Err(PoolFault::caused(what, Retry::Later, source));
            }
            Ok(found) if !found.is_dir() || found.ino() != mount::SUBVOLUME_ROOT => {
                let what = format!("{shown} is in the way: it is no snapshot; move it elsewhere");
                return Err(PoolFault::new(what, Retry::Never));
            }
            Ok(_) => {}
        }
        match self.ask(&["property", "get", "-ts", &shown, "ro"])?.trim() {
            "ro=true" => Ok(Some(Snapshot { path })),
            _ => Err(PoolFault::new(
                format!(
                    "{shown} is in the way: it is a writable subvolume and no snapshot of ours; move it elsewhere"
                ),
                Retry::Never,
            )),
        }
    }

    /// Deletes the snapshot and waits until that is on the devices. Its space comes back in the background.
    pub(super) fn delete_snapshot(&self) -> Result<(), PoolFault> {
        // A pool that cannot be written to, and holds none, has none to delete: no person need look at it.
        mount::check(&self.settings.pool, &self.settings.path, Access::Read)?;
        let Some(Snapshot { path }) = self.snapshot_there()? else {
            return Ok(());
        };
        mount::check(&self.settings.pool, &self.settings.path, Access::Write)?;
        let shown = path.display().to_string();
        let arguments = ["subvolume", "delete", "--commit-after", "--", &shown].map(str::to_owned);
        let deleted = self.btrfs.command(arguments).succeed(COMMITTED_WITHIN);
        deleted.map_err(|fault| {
            let what = format!("cannot delete the snapshot {shown}");
            PoolFault::caused(what, fault.retry(), fault)
        })?;
        Ok(())
    }

    fn make_folder(&self) -> Result<(), PoolFault> {
        let folder = self.settings.path.join(FOLDER);
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|source| {
            PoolFault::caused(format!("cannot make {}", folder.display()), Retry::Later, source)
        })
    }

    /// Users of the pool may write to its root, so what has the name may be a trap: a link would make us delete what
    /// lies elsewhere.
    fn has_folder(&self) -> Result<bool, PoolFault> {
        let folder = self.settings.path.join(FOLDER);
        let shown = folder.display().to_string();
        let found = match std::fs::symlink_metadata(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found.map_err(|source| {
                PoolFault::caused(format!("cannot look at {shown}"), Retry::Later, source)
            })?,
        };
        let ours =
            found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 == 0;
        match ours {
            true => Ok(true),
            false => Err(PoolFault::new(
                format!("{shown} must be a folder of root with mode 0700; move what is there elsewhere"),
                Retry::Never,
            )),
        }
    }

    fn nothing_is_forgotten(&self, within: &Path) -> Result<(), PoolFault> {
        let (pool, path) = (&self.settings.pool, self.path());
        let nested = nested(&self.ask(&["subvolume", "list", "-o", &path])?, within);
        let own = Path::new(FOLDER).join(NAME);
        let known = |nested: &&PathBuf| **nested == own || self.settings.left_out.contains(nested);
        let forgotten: Vec<_> = nested.iter().filter(|nested| !known(nested)).collect();
        if forgotten.is_empty() {
            return Ok(());
        }
        let mut names: Vec<String> = forgotten.iter().map(|path| path.display().to_string()).collect();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        Err(PoolFault::new(
            format!(
                "a snapshot of pool {pool} would not hold its nested subvolumes: {}; move them out of {path}, or \
                 name them in left_out if a backup may lack them",
                names.join(", ")
            ),
            Retry::Never,
        ))
    }
}

/// What `btrfs subvolume list -o` prints: subvolumes right below the pool's own, whose path from the file system's
/// root is `within`. Those below them are left out together with them.
fn nested(list: &str, within: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<String> = Vec::new();
    for line in list.lines() {
        let path = line
            .strip_prefix("ID ")
            .and_then(|rest| rest.split_once(" path "));
        match (path, paths.last_mut()) {
            (Some((_, path)), _) => paths.push(path.to_owned()),
            // A name may hold a newline.
            (None, Some(last)) => {
                last.push('\n');
                last.push_str(line);
            }
            (None, None) => {}
        }
    }
    let within = within.strip_prefix("/").unwrap_or(within);
    let relative = paths.iter().map(|path| {
        let path = Path::new(path);
        path.strip_prefix(within).unwrap_or(path).to_owned()
    });
    relative.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_subvolumes_are_named_as_seen_from_the_pool() {
        let list = "ID 256 gen 35 top level 5 path sub\nID 258 gen 35 top level 5 path d/with path in it\n";
        assert_eq!(
            nested(list, Path::new("/")),
            [Path::new("sub"), Path::new("d/with path in it")]
        );
        let list =
            "ID 257 gen 35 top level 256 path sub/deep\nID 258 gen 35 top level 256 path sub/two\nlines\n";
        assert_eq!(
            nested(list, Path::new("/sub")),
            [Path::new("deep"), Path::new("two\nlines")]
        );
        assert_eq!(nested("", Path::new("/")), Vec::<PathBuf>::new());
    }
}
