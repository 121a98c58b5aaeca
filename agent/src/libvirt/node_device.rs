//! The host's PCI devices as libvirt's node devices describe them. Only read; no device is touched.

use virt::sys;

use super::{Libvirt, LibvirtFault, found};
use crate::config::{PciAddress, PciModelId};

/// A PCI device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it sits.
    pub address: PciAddress,
    /// Its class and subclass, as 0x0302.
    pub class: u16,
    /// Its model.
    pub model: PciModelId,
    /// The vendor's name, where libvirt knows it.
    pub vendor_name: String,
    /// The model's name, where libvirt knows it.
    pub product_name: String,
    /// Whether it is an SR-IOV virtual function of another device.
    pub is_virtual_function: bool,
}

impl PciDevice {
    pub(super) fn parse(xml: &str) -> Option<Self> {
        let document = roxmltree::Document::parse(xml).ok()?;
        let named = |name| move |node: &roxmltree::Node<'_, '_>| node.has_tag_name(name);
        let pci = document
            .root_element()
            .children()
            .find(|node| node.has_tag_name("capability") && node.attribute("type") == Some("pci"))?;
        let child = |name| pci.children().find(named(name));
        // The place is written in decimal, class and ids in hexadecimal.
        let place = |name| child(name)?.text()?.trim().parse::<u16>().ok();
        let hex = |text: &str| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
        let id = |name| u16::try_from(hex(child(name)?.attribute("id")?)?).ok();
        let label = |name| {
            child(name)
                .and_then(|node| node.text())
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Some(Self {
            address: PciAddress {
                domain: place("domain")?,
                bus: u8::try_from(place("bus")?).ok()?,
                slot: u8::try_from(place("slot")?).ok()?,
                function: u8::try_from(place("function")?).ok()?,
            },
            // Class, subclass and programming interface, one byte each.
            class: child("class")
                .and_then(|node| hex(node.text()?))
                .map_or(0, |class| (class >> 8) as u16),
            model: PciModelId {
                vendor: id("vendor")?,
                device: id("product")?,
            },
            vendor_name: label("vendor"),
            product_name: label("product"),
            is_virtual_function: pci
                .children()
                .any(|node| node.attribute("type") == Some("phys_function")),
        })
    }
}

impl Libvirt {
    /// Every PCI device of the host, in the order of addresses.
    ///
    /// # Errors
    /// When libvirt does not list them.
    pub fn pci_devices(&self) -> Result<Vec<PciDevice>, LibvirtFault> {
        let listed = self.call(|connection| {
            connection.list_all_node_devices(sys::VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV)
        })?;
        let mut devices = Vec::with_capacity(listed.len());
        for device in listed {
            // One that was unplugged since it was listed is skipped.
            let xml = found(self.call(|_| device.xml_desc(0)))?;
            devices.extend(xml.as_deref().and_then(PciDevice::parse));
        }
        devices.sort_by_key(|device| device.address);
        Ok(devices)
    }
}
