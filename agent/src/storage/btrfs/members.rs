//! Which devices are the pool's and which it may still take, under the names that the configuration gives them.
//!
//! It changes nothing. The invariant: a device is one device whatever its paths, so what the pool has is never
//! offered as a spare.

use std::io;
use std::path::{Path, PathBuf};

use glob::Pattern;
use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;

use super::figures::{Show, Shown};
use crate::storage::PoolFault;
use crate::storage::block::{Block, Node};
use crate::storage::pool::{DeviceName, Member, Presence, Spare};
use crate::storage::spare::{Clean, Signature, SpareChecks};

/// What the configuration names: paths and patterns of paths.
#[derive(Debug, Clone)]
pub(super) struct Configured(Vec<String>);

/// Expanded to a path, and what is there.
#[derive(Debug)]
struct Candidate {
    path: PathBuf,
    block: Option<Block>,
}

impl Configured {
    /// Refuses what is no pattern.
    pub(super) fn new(spares: Vec<String>) -> Result<Self, PoolFault> {
        for spare in &spares {
            let never =
                |why: String| PoolFault::new(format!("the spare device {spare:?} {why}"), Retry::Never);
            if !spare.starts_with('/') {
                return Err(never(
                    "is relative; give it from the root, as /dev/disk/by-id/…".into(),
                ));
            }
            Pattern::new(spare).map_err(|error| never(format!("is no pattern of paths: {error}")))?;
        }
        Ok(Self(spares))
    }

    /// Every path, each device once, in configured order.
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for spare in &self.0 {
            for path in expand(spare) {
                let block = match Block::at(&path) {
                    Ok(Node::Block(block)) => Some(block),
                    Ok(Node::Other) | Err(_) => None,
                };
                let again = |other: &Candidate| match block {
                    Some(_) => other.block == block,
                    None => other.path == path,
                };
                if !candidates.iter().any(again) {
                    candidates.push(Candidate { path, block });
                }
            }
        }
        candidates
    }

    /// The pool's devices, and those that it may take.
    pub(super) fn sort(&self, show: &Show, sector: u64, checks: &SpareChecks) -> (Vec<Member>, Vec<Spare>) {
        let candidates = self.candidates();
        let members = show
            .devices
            .iter()
            .map(|shown| member(shown, sector, &candidates));
        let members = members.collect();
        let spares = candidates.iter().filter(|candidate| {
            let Some(block) = candidate.block else { return true };
            !show.devices.iter().any(|shown| shown.is(block))
        });
        let spares = spares.map(|spare| {
            let mut looked = look_at(spare, sector, checks);
            if looked.problem.is_some() && is_missed(spare, show, checks) {
                looked.problem = Some(format!(
                    "{} is a device that this pool misses, or was one: do not wipe it; unmount the pool and mount it again, \
                     and it takes part if it can",
                    looked.name
                ));
            }
            looked
        });
        (members, spares.collect())
    }
}

impl Shown {
    /// Whether it is this device.
    pub(super) fn is(&self, block: Block) -> bool {
        self.block() == Some(block)
    }

    fn block(&self) -> Option<Block> {
        match Block::at(self.path.as_deref()?) {
            Ok(Node::Block(block)) => Some(block),
            Ok(Node::Other) | Err(_) => None,
        }
    }

    /// How large the device is. What the pool uses of it, when the kernel no longer tells.
    pub(super) fn capacity(&self, sector: u64) -> Bytes {
        let size = self.block().map(Block::size).and_then(Result::ok);
        size.map_or(self.share, |size| whole_sectors(size, sector))
    }
}

/// A pool uses whole sectors of a device only.
pub(super) fn whole_sectors(size: Bytes, sector: u64) -> Bytes {
    Bytes(size.0 - size.0 % sector.max(1))
}

fn member(shown: &Shown, sector: u64, candidates: &[Candidate]) -> Member {
    let block = shown.block();
    let same = |candidate: &&Candidate| block.is_some() && candidate.block == block;
    let name = match (candidates.iter().find(same), &shown.path) {
        (Some(candidate), _) => candidate.path.display().to_string(),
        (None, Some(path)) => path.display().to_string(),
        (None, None) => format!("missing device {}", shown.id.0),
    };
    Member {
        name: DeviceName(name),
        capacity: shown.capacity(sector),
        share: shown.share,
        allocated: shown.allocated,
        presence: match block {
            Some(_) if shown.share == Bytes::ZERO => Presence::Leaving,
            Some(_) => Presence::Present,
            None => Presence::Missing,
        },
    }
}

/// Whether it has the pool's own signature while the pool misses a device: it may hold the only copy of something.
fn is_missed(candidate: &Candidate, show: &Show, checks: &SpareChecks) -> bool {
    let own = |signature: &Signature| signature.uuid.as_deref() == Some(&show.uuid);
    show.devices.iter().any(|shown| shown.path.is_none())
        && candidate.block.is_some()
        && checks
            .signatures(&candidate.path)
            .is_ok_and(|all| all.iter().any(own))
}

fn look_at(candidate: &Candidate, sector: u64, checks: &SpareChecks) -> Spare {
    let size = candidate.block.map(Block::size).and_then(Result::ok);
    let (capacity, problem) = match checks.check(&candidate.path) {
        Ok(Clean { capacity, .. }) => (capacity, None),
        Err(problem) => (size.unwrap_or_default(), Some(problem)),
    };
    Spare {
        name: DeviceName(candidate.path.display().to_string()),
        capacity: whole_sectors(capacity, sector),
        problem,
    }
}

/// A path that is there is that path, whatever characters it has.
fn expand(spare: &str) -> Vec<PathBuf> {
    let literal = !spare.contains(['*', '?', '[']);
    if literal || Path::new(spare).exists() {
        return vec![PathBuf::from(spare)];
    }
    // Checked at the start, and what cannot be read holds no device that could be used.
    glob::glob(spare).map_or_else(|_| Vec::new(), |paths| paths.filter_map(Result::ok).collect())
}

/// The device that a change names.
pub(super) fn find(name: &DeviceName) -> Result<Block, PoolFault> {
    match Block::at(Path::new(&name.0)) {
        Ok(Node::Block(block)) => Ok(block),
        Ok(Node::Other) => Err(PoolFault::new(
            format!("{name} is not a block device"),
            Retry::Never,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PoolFault::new(
            format!("{name} does not exist, so nobody can tell what it is to the pool; connect it again"),
            Retry::Later,
        )),
        Err(source) => Err(PoolFault::caused(
            format!("cannot look at {name}"),
            Retry::Later,
            source,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_expanded_anew_and_each_path_comes_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let configured = Configured::new(vec![path("disk-*"), path("other"), path("disk-1")]).unwrap();
        let names = || -> Vec<String> {
            let names = configured.candidates();
            names
                .iter()
                .map(|found| found.path.display().to_string())
                .collect()
        };
        assert_eq!(names(), [path("other"), path("disk-1")]);
        for name in ["disk-2", "disk-1", "disk-[x]"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(
            names(),
            [path("disk-1"), path("disk-2"), path("disk-[x]"), path("other")]
        );
        assert_eq!(expand(&path("disk-[x]")), [PathBuf::from(path("disk-[x]"))]);
    }

    #[test]
    fn a_spare_that_can_never_be_one_is_refused_at_the_start() {
        for spare in ["dev/sdb", "/dev/***", "/dev/[a"] {
            let fault = Configured::new(vec![spare.into()]).unwrap_err();
            assert!(fault.to_string().contains(spare), "{fault}");
        }
    }

    #[test]
    fn a_pool_has_whole_sectors() {
        assert_eq!(whole_sectors(Bytes(8193), 4096), Bytes(8192));
        assert_eq!(whole_sectors(Bytes(8192), 4096), Bytes(8192));
    }
}
