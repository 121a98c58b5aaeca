//! The door of fuzzing to what btrfs, blkid, wipefs and sysfs say.

use super::{btrfs, spare};

pub(crate) fn read(text: &str) -> Vec<String> {
    let mut said = btrfs::fuzzed::read(text);
    said.extend(spare::found(text));
    said.extend(spare::read_signatures(text).err());
    said
}
