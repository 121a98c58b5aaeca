//! The door of fuzzing to what btrfs and the kernel say of a pool.

use super::figures::{
    DeviceId, parse_exclusive, parse_lost_writes, parse_metadata_on, parse_profile, parse_show,
};

pub(in super::super) fn read(text: &str) -> Vec<String> {
    let mut said = vec![parse_exclusive(text).words().to_owned()];
    parse_metadata_on(text, DeviceId(1));
    parse_lost_writes(text);
    parse_profile(text);
    said.extend(parse_show(text).err().map(|error| error.to_string()));
    said
}
