//! The brand and the short model of a GPU, from libvirt's names or the PCI database.
//!
//! Clients match models literally (`T4`, `A10`, `A16`, `L40S`), so a name that the PCI ids cannot tell apart
//! (`A2 / A16`) stays as it is, with its slash: it matches nothing, where a guess would promise a card that may
//! not be there. `[[gpu]]` in the configuration settles it.

use super::pci_ids;
use crate::libvirt::PciDevice;

const NVIDIA: u16 = 0x10de;

/// Words that name a product line or the vendor and are not part of the short model. `GeForce`, `Quadro` and
/// `RTX` stay: without them a model would be another card's (`Quadro RTX 6000` and `RTX 6000 Ada`).
const LINES: [&str; 3] = ["NVIDIA", "Tesla", "GRID"];

/// Brand and model of `device`.
pub(super) fn of(device: &PciDevice) -> (String, String) {
    let name = match device.product_name.as_str() {
        "" => match pci_ids::name(device.model) {
            Some(name) => name,
            None => return (brand(device), device.model.to_string()),
        },
        name => name,
    };
    let model = if device.model.vendor == NVIDIA {
        short_nvidia(name)
    } else {
        bracketed(name).to_owned()
    };
    (brand(device), model)
}

fn brand(device: &PciDevice) -> String {
    let known = match device.model.vendor {
        NVIDIA => "NVIDIA",
        0x1002 => "AMD",
        0x8086 => "Intel",
        _ => device.vendor_name.as_str(),
    };
    if known.is_empty() {
        format!("{:04x}", device.model.vendor)
    } else {
        known.to_owned()
    }
}

/// The market name inside the last brackets, or all of it: `TU104GL [Tesla T4]` is `Tesla T4`.
fn bracketed(name: &str) -> &str {
    let inside = || {
        let (_, rest) = name.rsplit_once('[')?;
        Some(rest.split_once(']')?.0.trim())
    };
    inside()
        .filter(|inside| !inside.is_empty())
        .unwrap_or(name.trim())
}

fn short_nvidia(name: &str) -> String {
    let market = bracketed(name);
    if market.contains('/') {
        return market.to_owned();
    }
    let words = market.split_whitespace().skip_while(|word| LINES.contains(word));
    // How it is mounted and how much memory it has come after the model: `A100 PCIe 40GB`.
    let model: Vec<_> = words.take_while(|word| !is_form_or_memory(word)).collect();
    if model.is_empty() {
        market.to_owned()
    } else {
        model.join(" ")
    }
}

fn is_form_or_memory(word: &str) -> bool {
    let memory = word.strip_suffix("GB").or(word.strip_suffix("GiB"));
    word.starts_with("PCI")
        || word.starts_with("SXM")
        || word.starts_with("HBM")
        || memory.is_some_and(|amount| !amount.is_empty() && amount.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PciModelId;

    #[test]
    fn nvidia_names_are_reduced_to_the_short_model() {
        for (name, model) in [
            ("TU104GL [Tesla T4]", "T4"),
            ("GA102GL [A10]", "A10"),
            ("GA102GL [A40]", "A40"),
            ("AD102GL [L40S]", "L40S"),
            ("AD104GL [L4]", "L4"),
            ("GP104GL [Tesla P4]", "P4"),
            ("GM204GL [Tesla M60]", "M60"),
            ("GV100GL [Tesla V100 PCIe 16GB]", "V100"),
            ("GV100GL [Tesla V100 SXM2 32GB]", "V100"),
            ("GA100 [A100 SXM4 80GB]", "A100"),
            ("GH100 [H100 PCIe]", "H100"),
            ("GA102 [GeForce RTX 3090]", "GeForce RTX 3090"),
            ("GA102GL [RTX A6000]", "RTX A6000"),
            ("NVIDIA A16", "A16"),
            ("Device", "Device"),
        ] {
            assert_eq!(short_nvidia(name), model, "{name}");
        }
    }

    #[test]
    fn a_name_that_stands_for_several_cards_is_not_guessed() {
        assert_eq!(short_nvidia("GA107GL [A2 / A16]"), "A2 / A16");
        assert_eq!(
            short_nvidia("TU102GL [Quadro RTX 6000/8000]"),
            "Quadro RTX 6000/8000"
        );
    }

    #[test]
    fn the_pci_database_names_what_libvirt_does_not() {
        let device = |vendor, model| PciDevice {
            address: "0000:01:00.0".parse().unwrap(),
            class: 0x0302,
            model: PciModelId {
                vendor,
                device: model,
            },
            vendor_name: String::new(),
            product_name: String::new(),
            is_virtual_function: false,
        };
        assert_eq!(of(&device(0x10de, 0x1eb8)), ("NVIDIA".into(), "T4".into()));
        assert_eq!(of(&device(0x10de, 0x2236)), ("NVIDIA".into(), "A10".into()));
        assert_eq!(of(&device(0x1002, 0x73bf)).0, "AMD");
        assert_eq!(of(&device(0x8086, 0x56c0)).0, "Intel");
        assert_eq!(of(&device(0x10de, 0xffff)), ("NVIDIA".into(), "10de:ffff".into()));
    }
}
