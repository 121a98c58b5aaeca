//! The host's GPUs, one entry a physical one, from libvirt's node devices.

use hostler_common::rpc::hostler::agent::v1::Gpu;

use super::gpu_name;
use crate::config::{GpuOverride, PciModelId};
use crate::libvirt::{Libvirt, LibvirtFault, PciDevice};

/// PCI class 03: VGA controller, 3D controller, other display controller. 0301 (XGA) has had no hardware for
/// decades.
const DISPLAY_CLASSES: [u16; 3] = [0x0300, 0x0302, 0x0380];

/// Vendors whose display devices show a server's console and compute nothing: management controllers, and the
/// framebuffers that virtual machines get. A desktop that was promised a GPU must not land on one.
const FRAMEBUFFER_VENDORS: [u16; 11] = [
    0x1a03, // ASPEED, in most BMCs
    0x102b, // Matrox G200, in the others
    0x1013, // Cirrus Logic, real or emulated
    0x1234, // QEMU's standard VGA (Bochs)
    0x1b36, // Red Hat QXL
    0x1af4, // virtio-gpu
    0x15ad, // VMware SVGA
    0x1414, // Microsoft Hyper-V
    0x80ee, // VirtualBox
    0x5853, // Xen
    0x126f, // Silicon Motion, in older BMCs
];

/// The same of vendors that make GPUs too.
const FRAMEBUFFER_MODELS: [PciModelId; 3] = [
    PciModelId {
        vendor: 0x1002,
        device: 0x515e,
    }, // ES1000
    PciModelId {
        vendor: 0x1002,
        device: 0x5159,
    }, // RV100, as a server's console
    PciModelId {
        vendor: 0x1002,
        device: 0x4752,
    }, // Rage XL
];

/// Every physical GPU of the host, in the order of addresses.
///
/// # Errors
/// When libvirt does not list the host's devices.
pub fn discover(libvirt: &Libvirt, overrides: &[GpuOverride]) -> Result<Vec<Gpu>, LibvirtFault> {
    let devices = libvirt.pci_devices()?;
    Ok(devices
        .iter()
        .filter(|device| is_gpu(device))
        .map(|device| describe(device, overrides))
        .collect())
}

fn is_gpu(device: &PciDevice) -> bool {
    DISPLAY_CLASSES.contains(&device.class)
        && !device.is_virtual_function
        && !FRAMEBUFFER_VENDORS.contains(&device.model.vendor)
        && !FRAMEBUFFER_MODELS.contains(&device.model)
}

fn describe(device: &PciDevice, overrides: &[GpuOverride]) -> Gpu {
    let given = |matches: &dyn Fn(&GpuOverride) -> bool| overrides.iter().find(|gpu| matches(gpu));
    // An address says more than a model.
    let given = given(&|gpu| gpu.pci == Some(device.address))
        .or_else(|| given(&|gpu| gpu.device == Some(device.model)));
    let (brand, model) = match given {
        Some(gpu) => (gpu.brand.clone(), gpu.model.clone()),
        None => gpu_name::of(device),
    };
    Gpu {
        pci_address: device.address.to_string(),
        brand,
        model,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PciAddress;

    fn device(address: &str, class: u16, vendor: u16, model: u16) -> PciDevice {
        PciDevice {
            address: address.parse::<PciAddress>().unwrap(),
            class,
            model: PciModelId {
                vendor,
                device: model,
            },
            vendor_name: String::new(),
            product_name: String::new(),
            is_virtual_function: false,
        }
    }

    #[test]
    fn display_and_3d_controllers_of_gpu_makers_are_gpus() {
        assert!(is_gpu(&device("0000:01:00.0", 0x0300, 0x10de, 0x2204)));
        assert!(is_gpu(&device("0000:01:00.0", 0x0302, 0x10de, 0x1eb8)));
        assert!(is_gpu(&device("0000:01:00.0", 0x0380, 0x1002, 0x7408)));
        assert!(
            !is_gpu(&device("0000:01:00.1", 0x0403, 0x10de, 0x228b)),
            "its sound"
        );
    }

    #[test]
    fn consoles_and_virtual_functions_are_not_gpus() {
        for (vendor, model) in [
            (0x1a03, 0x2000),
            (0x102b, 0x0536),
            (0x1234, 0x1111),
            (0x1af4, 0x1050),
            (0x1002, 0x515e),
        ] {
            assert!(
                !is_gpu(&device("0000:01:00.0", 0x0300, vendor, model)),
                "{vendor:x}"
            );
        }
        let mut function = device("0000:01:00.4", 0x0302, 0x10de, 0x2236);
        function.is_virtual_function = true;
        assert!(!is_gpu(&function));
    }

    #[test]
    fn a_configured_name_wins_and_an_address_wins_over_a_model() {
        let named = |pci: Option<&str>, device: Option<PciModelId>, model: &str| GpuOverride {
            pci: pci.map(|pci| pci.parse().unwrap()),
            device,
            model: model.into(),
            brand: "NVIDIA".into(),
        };
        let id = PciModelId {
            vendor: 0x10de,
            device: 0x25b6,
        };
        let overrides = [
            named(None, Some(id), "A16"),
            named(Some("0000:02:00.0"), None, "A2"),
        ];
        let model = |address| describe(&device(address, 0x0302, 0x10de, 0x25b6), &overrides).model;
        assert_eq!(model("0000:01:00.0"), "A16");
        assert_eq!(model("0000:02:00.0"), "A2");
    }
}
