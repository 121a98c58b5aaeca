//! How much of a device lies beyond the end that a shrink gives it: what the shrink has to move.
//!
//! Only the device tree tells, and only `btrfs inspect-internal` prints it; it reads beside the mounted file system,
//! so that an answer may be old, or none. It is for progress alone and decides nothing.

use std::time::{Duration, Instant};

use hostler_common::bytes::Bytes;

use super::Btrfs;
use super::figures::{DeviceId, Shown};
use super::rate::Rate;
use crate::command::KeepGoing;
use crate::executor::step::Progress;

/// The tree of a large pool takes a while to read.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Then there is no progress to tell; a cancel must not wait for it.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Tells how far a shrink is.
pub(super) struct Shrinking<'a> {
    pool: &'a Btrfs,
    device: Shown,
    end: Bytes,
    rate: Rate,
    looked: Option<Instant>,
}

impl<'a> Shrinking<'a> {
    pub(super) fn new(pool: &'a Btrfs, name: &str, device: &Shown, end: Bytes) -> Self {
        Self {
            pool,
            device: device.clone(),
            end,
            rate: Rate::new(format!("relocate the end of {name}"), Bytes::ZERO),
            looked: None,
        }
    }

    /// Says how far it is, when that was not said for a while.
    pub(super) fn look(&mut self, progress: &Progress) {
        let now = Instant::now();
        if self
            .looked
            .is_some_and(|looked| now.duration_since(looked) < LOOK_EVERY)
        {
            return;
        }
        self.looked = Some(now);
        if let Some(left) = self.left() {
            progress.measure(self.rate.measure(left, now));
        }
    }

    fn left(&self) -> Option<Bytes> {
        let path = self.device.path.as_ref()?.display().to_string();
        let arguments = ["inspect-internal", "dump-tree", "-t", "dev", &path];
        let mut extents = Extents::new(self.device.id, self.end);
        let mut on_line = |line: &str| extents.line(line);
        let command = self.pool.btrfs.command(arguments);
        let output = command
            .follow(&mut on_line, &mut || KeepGoing::Yes, READ_WITHIN)
            .ok()?;
        output.status.success().then_some(extents.beyond)
    }
}

/// Adds up what is beyond the end, line by line.
struct Extents {
    id: DeviceId,
    end: Bytes,
    /// Where the extent of the lines that follow begins, when it is one of this device.
    begin: Option<Bytes>,
    beyond: Bytes,
}

impl Extents {
    fn new(id: DeviceId, end: Bytes) -> Self {
        Self {
            id,
            end,
            begin: None,
            beyond: Bytes::ZERO,
        }
    }

    fn line(&mut self, line: &str) {
        if let Some((_, key)) = line.split_once(" key (") {
            self.begin = self.extent_of(key);
        } else if let (Some(begin), Some((_, length))) = (self.begin, line.split_once(" length ")) {
            let length = Bytes(length.trim().parse().unwrap_or_default());
            // A chunk moves whole.
            if begin.plus(length) > self.end {
                self.beyond = self.beyond.plus(length);
            }
            self.begin = None;
        }
    }

    /// `1 DEV_EXTENT 22020096) itemoff …`, where 1 is the device.
    fn extent_of(&self, key: &str) -> Option<Bytes> {
        let (id, rest) = key.split_once(" DEV_EXTENT ")?;
        let (begin, _) = rest.split_once(')')?;
        let own = id.parse() == Ok(self.id.0);
        own.then(|| begin.parse().ok().map(Bytes))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_extents_of_the_device_that_end_beyond_count() {
        let tree = "device tree key (DEV_TREE ROOT_ITEM 0)\n\
            \titem 0 key (DEV_STATS PERSISTENT_ITEM 1) itemoff 16243 itemsize 40\n\
            \titem 1 key (1 DEV_EXTENT 1000) itemoff 16195 itemsize 48\n\t\tdev extent chunk_tree 3\n\
            \t\tchunk_objectid 256 chunk_offset 22020096 length 500\n\
            \titem 2 key (1 DEV_EXTENT 1500) itemoff 16147 itemsize 48\n\
            \t\tchunk_objectid 256 chunk_offset 22020096 length 600\n\
            \titem 3 key (1 DEV_EXTENT 2100) itemoff 16147 itemsize 48\n\
            \t\tchunk_objectid 256 chunk_offset 22020096 length 70\n\
            \titem 4 key (12 DEV_EXTENT 9000) itemoff 16147 itemsize 48\n\
            \t\tchunk_objectid 256 chunk_offset 22020096 length 8\n";
        for (end, beyond) in [(0, 1170), (1500, 670), (2000, 670), (2100, 70), (2170, 0)] {
            let mut extents = Extents::new(DeviceId(1), Bytes(end));
            tree.lines().for_each(|line| extents.line(line));
            assert_eq!(extents.beyond, Bytes(beyond), "{end}");
        }
    }
}
