//! Names from the PCI ID database, of the makers of GPUs alone.
//!
//! The database is text in the program's constants, read only when libvirt has no name for a GPU. Tables of
//! references to each name would have to be relocated at every start, and stay in memory for good.

use crate::config::PciModelId;

const DATABASE: &str = include_str!("pci.ids");

/// The name of a device; none for one that is newer than the database, or no GPU.
pub(super) fn name(model: PciModelId) -> Option<&'static str> {
    let vendor = format!("{:04x}  ", model.vendor);
    let device = format!("\t{:04x}  ", model.device);
    DATABASE
        .lines()
        .skip_while(|line| !line.starts_with(&vendor))
        .skip(1)
        .take_while(|line| line.starts_with('\t'))
        .find_map(|line| line.strip_prefix(&device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_under_its_own_vendor_only() {
        let of = |vendor, device| name(PciModelId { vendor, device });
        assert_eq!(of(0x10de, 0x26b9), Some("AD102GL [L40S]"));
        assert_eq!(
            of(0x1002, 0x73bf),
            Some("Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]")
        );
        assert_eq!(of(0x8086, 0x56c0), Some("ATS-M [Data Center GPU Flex 170]"));
        assert_eq!(of(0x1002, 0x26b9), None);
        assert_eq!(of(0x10de, 0xffff), None);
        assert_eq!(of(0xffff, 0x0000), None);
    }

    #[test]
    fn every_line_of_the_database_is_one_that_is_understood() {
        for line in DATABASE.lines().filter(|line| !line.starts_with('#')) {
            let entry = line.strip_prefix('\t').unwrap_or(line);
            let (id, name) = entry.split_once("  ").unwrap();
            assert!(id.len() == 4 && u16::from_str_radix(id, 16).is_ok(), "{line}");
            assert!(!name.is_empty() && !name.starts_with(' '), "{line}");
        }
    }
}
