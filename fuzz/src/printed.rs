//! What libvirt describes and what programs and the kernel print.

use hostler_agent::fuzzing;

use crate::said;

/// libvirt's XML, and definitions that a site wrote.
pub fn libvirt_xml(data: &[u8]) {
    for sentence in fuzzing::libvirt_xml(&String::from_utf8_lossy(data)) {
        said::bounded(&sentence);
    }
}

/// The output of btrfs, blkid, wipefs, restic, systemctl, docker, and of files in /proc and /sys.
pub fn tool_output(data: &[u8]) {
    for sentence in fuzzing::tool_output(&String::from_utf8_lossy(data)) {
        said::bounded(&sentence);
    }
}
