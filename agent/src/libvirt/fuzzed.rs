//! The door of fuzzing to what reads libvirt's XML.

use std::path::Path;

use super::domain::has_disk;
use super::{PciDevice, VolumeSeen};

/// Reads `xml` as all that it could be; what of it goes into sentences.
pub(crate) fn read(xml: &str) -> Vec<String> {
    has_disk(xml, Path::new("/var/lib/libvirt/images/a.qcow2"));
    let mut said = Vec::new();
    if let Some(volume) = VolumeSeen::parse(xml) {
        said.push(volume.format);
    }
    if let Some(device) = PciDevice::parse(xml) {
        said.push(device.address.to_string());
        said.push(device.vendor_name);
    }
    said
}
