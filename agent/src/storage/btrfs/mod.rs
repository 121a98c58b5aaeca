//! A pool of block devices in a btrfs: what it is made of, and how it takes, gives back and cuts devices.
//!
//! `figures` and `members` read; `add`, `remove` and `resize` change, each able to meet its own half-done work after a
//! crash; `exclusive` waits for its turn. Nothing is remembered between two calls. The invariant: no device
//! is ever wiped, and none is taken that holds anything; what the pool itself left on a device is cleared.

mod add;
mod beyond;
mod exclusive;
mod figures;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzed;
mod long;
mod members;
mod mount;
mod rate;
mod remove;
mod resize;
mod room;
mod snapshot;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;
use hostler_common::id::PoolName;

use self::add::Wanted;
use self::figures::{Exclusive, Show, Shown, Sysfs};
use self::members::Configured;
use self::mount::Access;
use super::block::Block;
use super::pool::{Change, DeviceName, PoolState, Snapshot};
use super::spare::SpareChecks;
use super::{Backend, PoolFault};
use crate::command::{CommandFault, Program};
use crate::executor::step::{Progress, StepError};

/// For programs that only ask the kernel. A commit that is under way may hold them up.
const SOON: Duration = Duration::from_secs(120);

/// How long a change of somebody else's on the pool is waited for.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Which pool, and what it may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name.
    pub pool: PoolName,
    /// Where it is mounted.
    pub path: PathBuf,
    /// Devices that it may take: paths, or patterns of paths.
    pub spares: Vec<String>,
    /// Nested subvolumes that a backup may leave out, relative to the pool.
    pub left_out: Vec<PathBuf>,
}

/// A pool in a btrfs. See [`Backend`].
#[derive(Debug)]
pub struct Btrfs {
    settings: Settings,
    spares: Configured,
    btrfs: Program,
    checks: SpareChecks,
    patience: Duration,
    /// Held while a device is opened exclusively, since that refuses it to anybody else, and to us.
    devices: Mutex<()>,
}

/// The pool at one instant.
#[derive(Debug)]
struct View {
    show: Show,
    sysfs: Sysfs,
}

impl Btrfs {
    /// A pool as configured. It looks at no device: the pool may not be mounted yet.
    ///
    /// # Errors
    /// When a program is missing, or a spare is no path.
    pub fn new(settings: Settings) -> Result<Self, PoolFault> {
        let program = |fault: CommandFault| {
            let what = format!("pool {} cannot be used", settings.pool);
            PoolFault::caused(what, Retry::Never, fault)
        };
        Ok(Self {
            btrfs: Program::find("btrfs").map_err(program)?,
            checks: SpareChecks::find().map_err(program)?,
            spares: Configured::new(settings.spares.clone())?,
            patience: PATIENCE,
            devices: Mutex::new(()),
            settings,
        })
    }

    /// Waits this long, and not an hour, for changes that others make to the pool.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn path(&self) -> String {
        self.settings.path.display().to_string()
    }

    fn view(&self, access: Access) -> Result<View, PoolFault> {
        mount::check(&self.settings.pool, &self.settings.path, access)?;
        let output = self.ask(&["filesystem", "show", "--raw", &self.path()])?;
        let show = figures::parse_show(&output).map_err(|source| {
            let what = format!("cannot read the devices of pool {}", self.settings.pool);
            PoolFault::caused(what, Retry::Never, source)
        })?;
        let sysfs = Sysfs::of(&show.uuid);
        Ok(View { show, sysfs })
    }

    /// Output of a `btrfs` that only reads.
    fn ask(&self, arguments: &[&str]) -> Result<String, PoolFault> {
        let output = self.btrfs.command(arguments.to_vec()).succeed(SOON);
        let output = output.map_err(|fault| {
            let what = format!("pool {} does not tell about itself", self.settings.pool);
            PoolFault::caused(what, fault.retry(), fault)
        })?;
        Ok(output.stdout)
    }

    fn devices(&self) -> MutexGuard<'_, ()> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clears what the pool left on a device that is no member of it now. A device that it misses has the same
    /// signature, and may hold the only copy of something: then nothing is cleared.
    fn clear_own_signature(&self, name: &DeviceName, show: &Show) -> Result<(), StepError> {
        let _alone = self.devices();
        let path = PathBuf::from(&name.0);
        let failed = |why: String| StepError::message(why, Retry::ReadBack);
        for signature in self.checks.signatures(&path).map_err(failed)? {
            if signature.kind != "btrfs" || signature.uuid.as_deref() != Some(&show.uuid) {
                continue;
            }
            if show.devices.iter().any(|shown| shown.path.is_none()) {
                return Err(failed(format!(
                    "{name} still has the signature of pool {}, which misses a device: it is not cleared, since {name} \
                     may be that one",
                    self.settings.pool
                )));
            }
            self.checks.clear(&path, &signature).map_err(|fault| {
                let what = format!(
                    "cannot clear the signature of pool {} on {name}",
                    self.settings.pool
                );
                StepError::from(PoolFault::caused(what, Retry::ReadBack, fault))
            })?;
        }
        Ok(())
    }
}

impl View {
    fn member(&self, block: Block) -> Option<&Shown> {
        self.show.devices.iter().find(|shown| shown.is(block))
    }

    fn missing(&self) -> bool {
        self.show.devices.iter().any(|shown| shown.path.is_none())
    }

    fn exclusive(&self) -> Result<Exclusive, PoolFault> {
        self.sysfs.exclusive().map_err(cannot_tell)
    }
}

/// sysfs or statfs did not answer.
fn cannot_tell(source: std::io::Error) -> PoolFault {
    PoolFault::caused("the kernel does not tell about the pool", Retry::Later, source)
}

impl Backend for Btrfs {
    fn kind(&self) -> &'static str {
        "btrfs"
    }

    fn look(&self) -> Result<PoolState, PoolFault> {
        let view = self.view(Access::Write)?;
        let sector = view.sysfs.sector().map_err(cannot_tell)?;
        let (members, spares) = {
            let _alone = self.devices();
            self.spares.sort(&view.show, sector, &self.checks)
        };
        let (data, metadata) = view.sysfs.spaces().map_err(cannot_tell)?;
        let (size, used) = figures::size_and_used(&self.settings.path).map_err(cannot_tell)?;
        Ok(PoolState {
            size,
            used,
            data_used: data.used,
            metadata_used: metadata.used,
            data_free: data.free_on_devices,
            metadata_allocated: metadata
                .on_devices
                .plus(view.sysfs.trees_on_devices().map_err(cannot_tell)?),
            data: data.profile,
            metadata: metadata.profile,
            members,
            spares,
        })
    }

    fn is_done(&self, change: &Change) -> Result<bool, PoolFault> {
        let view = self.view(Access::Read)?;
        let block = members::find(change.device())?;
        let member = view.member(block);
        Ok(match change {
            // While it is removed its share is 0.
            Change::Add { .. } => member.is_some_and(|member| member.share > Bytes::ZERO),
            Change::Remove { .. } => {
                if member.is_none() && view.missing() {
                    let pool = &self.settings.pool;
                    let what = format!(
                        "pool {pool} misses a device, and {} may be that one",
                        change.device()
                    );
                    return Err(PoolFault::new(what, Retry::Never));
                }
                member.is_none()
            }
            // At once, so that whatever runs is somebody else's.
            Change::Grow { to, .. } => member.is_some_and(|member| member.share == *to),
            // One that runs shows its aim already.
            Change::Shrink { to, .. } => {
                member.is_some_and(|member| member.share == *to) && view.exclusive()? != Exclusive::Resize
            }
        })
    }

    fn apply(&self, change: &Change, progress: &Progress) -> Result<(), StepError> {
        match change {
            Change::Add { device, capacity } => self.add(device, Wanted::Exactly(*capacity), progress),
            Change::Remove {
                device,
                share,
                allocated,
            } => self.remove(device, Some(*share), *allocated, progress),
            Change::Grow { device, from, to } | Change::Shrink { device, from, to } => {
                self.resize(device, *from, *to, progress)
            }
        }
    }

    fn revert(&self, change: &Change, progress: &Progress) -> Result<(), StepError> {
        match change {
            Change::Add { device, .. } => self.take_back_add(device, progress),
            Change::Remove { device, share, .. } => {
                self.stop_removal(device, progress)?;
                self.add(device, Wanted::AtLeast(*share), progress)?;
                self.no_more_than(device, *share, progress)
            }
            Change::Grow { device, from, to } => self.resize(device, *to, *from, progress),
            Change::Shrink { device, from, to } => {
                self.stop_shrink(device, *to)?;
                self.resize(device, *to, *from, progress)
            }
        }
    }

    fn take_snapshot(&self) -> Result<Snapshot, PoolFault> {
        self.snapshot()
    }

    fn found_snapshot(&self) -> Result<Option<Snapshot>, PoolFault> {
        mount::check(&self.settings.pool, &self.settings.path, Access::Read)?;
        self.snapshot_there()
    }

    fn remove_snapshot(&self) -> Result<(), PoolFault> {
        self.delete_snapshot()
    }
}
