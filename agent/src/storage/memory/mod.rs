//! A pool in memory, for tests only: devices, data that lies on them, and whatever can go wrong.
//!
//! Behind the feature `memory-pool`, so that no shipped program has it. Clones share the pool, so that it outlives a
//! crash of whoever works on it. The invariant: a piece of data that was written lies on as many members as the
//! profile has copies, at each moment.

mod disks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;
use hostler_common::rpc::hostler::agent::v1::Measure;

use self::disks::{Device, Disks, Emptying, Piece, usable};
use super::pool::{Change, DeviceName, PoolState, Profile, Snapshot};
use super::{Backend, PoolFault};
use crate::executor::step::{Progress, StepError};

/// Data moves in pieces of at most this.
const PIECE: u64 = 64 << 20;
/// How often a relocation that is held asks whether it is cancelled.
const ASK: Duration = Duration::from_millis(5);

/// A call to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `look`.
    Look,
    /// `is_done`.
    IsDone,
    /// `apply`.
    Apply,
    /// `revert`.
    Revert,
}

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// Before its effect.
    Before,
    /// After it.
    After,
}

#[derive(Debug, Default)]
struct Gate {
    is_closed: bool,
    held: usize,
}

#[derive(Debug)]
struct Inner {
    disks: Disks,
    /// Which call fails, after how many good ones, and how.
    faults: BTreeMap<Call, (usize, Fail, Retry)>,
    gate: Gate,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// The pool. Its files, for snapshots, lie in a folder.
#[derive(Debug, Clone)]
pub struct MemoryPool(Arc<Shared>);

impl MemoryPool {
    /// An empty pool of `members`, with `spares` beside it.
    pub fn new(folder: PathBuf, data: Profile, members: &[(&str, Bytes)], spares: &[(&str, Bytes)]) -> Self {
        let device = |(name, capacity): &(&str, Bytes), share| Device {
            name: DeviceName((*name).to_owned()),
            capacity: capacity.0,
            share,
            emptying: Emptying::Nothing,
            is_gone: false,
            problem: None,
        };
        let members = members
            .iter()
            .map(|member| device(member, Some(usable(member.1.0))));
        let spares = spares.iter().map(|spare| device(spare, None));
        let disks = Disks {
            data,
            devices: members.chain(spares).collect(),
            pieces: Vec::new(),
        };
        let inner = Inner {
            disks,
            faults: BTreeMap::new(),
            gate: Gate::default(),
        };
        Self(Arc::new(Shared {
            folder,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        }))
    }

    /// Another pool, as this one is now.
    pub fn copied(&self) -> Self {
        let inner = self.lock();
        Self(Arc::new(Shared {
            folder: self.0.folder.clone(),
            inner: Mutex::new(Inner {
                disks: inner.disks.clone(),
                faults: BTreeMap::new(),
                gate: Gate::default(),
            }),
            changed: Condvar::new(),
        }))
    }

    /// Writes a blob; false when there is no room for it.
    pub fn write(&self, blob: &str, bytes: Bytes) -> bool {
        let mut inner = self.lock();
        let before = inner.disks.pieces.len();
        let mut left = bytes.0;
        while left > 0 {
            let size = left.min(PIECE);
            let Some(on) = inner.disks.places(size) else {
                inner.disks.pieces.truncate(before);
                return false;
            };
            inner.disks.pieces.push(Piece {
                blob: blob.to_owned(),
                bytes: size,
                on,
            });
            left -= size;
        }
        true
    }

    /// Every blob with the bytes of it that are whole: on enough different members that are there.
    pub fn contents(&self) -> BTreeMap<String, Bytes> {
        let inner = self.lock();
        let mut contents = BTreeMap::new();
        for piece in &inner.disks.pieces {
            let whole = piece.on.iter().enumerate().all(|(at, device)| {
                inner.disks.member(device).is_some_and(|device| !device.is_gone)
                    && !piece.on[..at].contains(device)
            });
            let bytes = contents.entry(piece.blob.clone()).or_insert(Bytes::ZERO);
            if whole {
                *bytes = bytes.plus(Bytes(piece.bytes));
            }
        }
        contents
    }

    /// Whether no member holds more than its share.
    pub fn is_within_shares(&self) -> bool {
        let inner = self.lock();
        inner
            .disks
            .devices
            .iter()
            .all(|device| inner.disks.allocated(&device.name) <= device.share.unwrap_or(0))
    }

    /// The call after the next `good` ones fails, once.
    pub fn fail(&self, call: Call, good: usize, when: Fail, retry: Retry) {
        self.lock().faults.insert(call, (good, when, retry));
    }

    /// A device disappears.
    pub fn vanish(&self, device: &str) {
        let mut inner = self.lock();
        if let Some(device) = inner
            .disks
            .devices
            .iter_mut()
            .find(|known| known.name.0 == device)
        {
            device.is_gone = true;
        }
    }

    /// Somebody uses a spare device for something else, or no longer does.
    pub fn set_problem(&self, device: &str, problem: Option<&str>) {
        let mut inner = self.lock();
        if let Some(device) = inner
            .disks
            .devices
            .iter_mut()
            .find(|known| known.name.0 == device)
        {
            device.problem = problem.map(str::to_owned);
        }
    }

    /// Data that moves stops at its next piece until the gate is opened.
    pub fn close_gate(&self) {
        self.lock().gate.is_closed = true;
    }

    /// Data moves again.
    pub fn open_gate(&self) {
        self.lock().gate.is_closed = false;
        self.0.changed.notify_all();
    }

    /// Blocks until data stops at the gate; false when it does not within `at_most`.
    pub fn wait_until_held(&self, at_most: Duration) -> bool {
        let inner = self.lock();
        let waited = self
            .0
            .changed
            .wait_timeout_while(inner, at_most, |inner| inner.gate.held == 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` between the two points at which `call` may be told to fail.
    fn call<T>(&self, call: Call, act: impl FnOnce() -> Result<T, StepError>) -> Result<T, StepError> {
        let fault = {
            let mut inner = self.lock();
            match inner.faults.get_mut(&call) {
                None => None,
                Some((good, ..)) if *good > 0 => {
                    *good -= 1;
                    None
                }
                Some(_) => inner.faults.remove(&call),
            }
        };
        let failed = |retry| Err(StepError::message(format!("{call:?} failed on purpose"), retry));
        match fault {
            None => act(),
            Some((_, Fail::Before, retry)) => failed(retry),
            Some((_, Fail::After, retry)) => {
                act()?;
                failed(retry)
            }
        }
    }

    fn hold(&self, may_stop: Option<&Progress>) -> Result<(), StepError> {
        let mut inner = self.lock();
        if !inner.gate.is_closed {
            drop(inner);
            return may_stop.map_or(Ok(()), Progress::check_cancelled);
        }
        inner.gate.held += 1;
        self.0.changed.notify_all();
        let mut result = Ok(());
        while inner.gate.is_closed && result.is_ok() {
            let waited = self.0.changed.wait_timeout(inner, ASK);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            result = may_stop.map_or(Ok(()), Progress::check_cancelled);
            inner = self.lock();
        }
        inner.gate.held -= 1;
        result
    }

    /// Moves what is on `device` beyond `to` to other members, piece by piece.
    fn relocate(
        &self,
        device: &DeviceName,
        to: u64,
        progress: &Progress,
        may_stop: bool,
    ) -> Result<(), StepError> {
        let total = self.lock().disks.allocated(device).saturating_sub(to);
        loop {
            self.hold(may_stop.then_some(progress))?;
            let mut inner = self.lock();
            let left = inner.disks.allocated(device).saturating_sub(to);
            progress.measure(Measure {
                what: format!("relocate {device}"),
                done_bytes: total.saturating_sub(left),
                total_bytes: total,
                ..Measure::default()
            });
            if left == 0 {
                return Ok(());
            }
            if let Some(gone) = inner
                .disks
                .devices
                .iter()
                .find(|known| known.is_gone && known.share.is_some())
            {
                let problem = format!("device {} does not answer", gone.name);
                return Err(StepError::message(problem, Retry::Never));
            }
            let at = inner
                .disks
                .pieces
                .iter()
                .position(|piece| piece.on.contains(device));
            let moved = at.is_some_and(|at| inner.disks.move_piece(at, device));
            if !moved {
                let problem =
                    format!("there is no room to move what is on {device}; it is still part of the pool");
                return Err(StepError::message(problem, Retry::Never));
            }
        }
    }

    fn set_emptying(&self, device: &DeviceName, emptying: Emptying) {
        if let Some(device) = self.lock().disks.device(device) {
            device.emptying = emptying;
        }
    }

    /// Empties a member and takes it out.
    fn take_out(&self, device: &DeviceName, progress: &Progress, may_stop: bool) -> Result<(), StepError> {
        self.set_emptying(device, Emptying::Wholly);
        let moved = self.relocate(device, 0, progress, may_stop);
        let mut inner = self.lock();
        if let Some(device) = inner.disks.device(device) {
            device.emptying = Emptying::Nothing;
            if moved.is_ok() {
                device.share = None;
            }
        }
        moved
    }

    fn cut(
        &self,
        device: &DeviceName,
        to: u64,
        progress: &Progress,
        may_stop: bool,
    ) -> Result<(), StepError> {
        self.set_emptying(device, Emptying::Partly);
        let moved = self.relocate(device, to, progress, may_stop);
        if let Some(device) = self.lock().disks.device(device) {
            device.emptying = Emptying::Nothing;
            if moved.is_ok() {
                device.share = Some(to);
            }
        }
        moved
    }

    /// A spare becomes a member, of which the pool uses `share`.
    fn put_in(&self, device: &DeviceName, share: Option<u64>) -> Result<(), StepError> {
        let refused = |problem: String| Err(StepError::message(problem, Retry::Never));
        let mut inner = self.lock();
        match inner.disks.device(device) {
            None => refused(format!("there is no device {device}")),
            Some(known) if known.is_gone => refused(format!("device {device} does not exist any more")),
            Some(known) if known.share.is_some() => Ok(()),
            Some(Device {
                problem: Some(problem),
                ..
            }) => refused(problem.clone()),
            Some(known) => {
                known.share = Some(share.unwrap_or(usable(known.capacity)));
                Ok(())
            }
        }
    }

    fn set_share(&self, device: &DeviceName, share: u64) -> Result<(), StepError> {
        match self.lock().disks.device(device) {
            Some(known) if !known.is_gone => {
                known.share = Some(share);
                Ok(())
            }
            _ => Err(StepError::message(
                format!("device {device} does not exist any more"),
                Retry::Never,
            )),
        }
    }
}

/// A fault of a call that answers with [`PoolFault`].
fn fault(error: &StepError) -> PoolFault {
    PoolFault::new(error.to_string(), error.retry())
}

impl Backend for MemoryPool {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn look(&self) -> Result<PoolState, PoolFault> {
        self.call(Call::Look, || Ok(self.lock().disks.state()))
            .map_err(|error| fault(&error))
    }

    fn is_done(&self, change: &Change) -> Result<bool, PoolFault> {
        self.call(Call::IsDone, || Ok(self.lock().disks.is_done(change)))
            .map_err(|error| fault(&error))
    }

    fn apply(&self, change: &Change, progress: &Progress) -> Result<(), StepError> {
        self.call(Call::Apply, || {
            if self.lock().disks.is_done(change) {
                return Ok(());
            }
            match change {
                Change::Grow { device, to, .. } => self.set_share(device, to.0),
                Change::Add { device, .. } => self.put_in(device, None),
                Change::Remove { device, .. } => self.take_out(device, progress, true),
                Change::Shrink { device, to, .. } => self.cut(device, to.0, progress, true),
            }
        })
    }

    fn revert(&self, change: &Change, progress: &Progress) -> Result<(), StepError> {
        self.call(Call::Revert, || match change {
            Change::Grow { device, from, .. } => self.cut(device, from.0, progress, false),
            Change::Add { device, .. } => {
                let is_member = self.lock().disks.member(device).is_some();
                match is_member {
                    true => self.take_out(device, progress, false),
                    false => Ok(()),
                }
            }
            Change::Remove { device, share, .. } => {
                self.put_in(device, Some(share.0))?;
                self.set_share(device, share.0)
            }
            Change::Shrink { device, from, .. } => self.set_share(device, from.0),
        })
    }

    fn take_snapshot(&self) -> Result<Snapshot, PoolFault> {
        if let Some(snapshot) = self.found_snapshot()? {
            return Ok(snapshot);
        }
        let path = self.snapshot_path();
        copy(&self.0.folder, &path).map_err(|source| {
            PoolFault::caused(format!("cannot make {}", path.display()), Retry::Never, source)
        })?;
        Ok(Snapshot { path })
    }

    fn found_snapshot(&self) -> Result<Option<Snapshot>, PoolFault> {
        let path = self.snapshot_path();
        Ok(path.is_dir().then_some(Snapshot { path }))
    }

    fn remove_snapshot(&self) -> Result<(), PoolFault> {
        let path = self.snapshot_path();
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PoolFault::caused(
                format!("cannot remove {}", path.display()),
                Retry::Later,
                error,
            )),
            _ => Ok(()),
        }
    }
}

impl MemoryPool {
    fn snapshot_path(&self) -> PathBuf {
        self.0.folder.join(".hostler/backup")
    }
}

/// Files and folders, without what Hostler keeps for itself.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true if entry.file_name() == ".hostler" => {}
            true => copy(&entry.path(), &to.join(entry.file_name()))?,
            false => {
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}
