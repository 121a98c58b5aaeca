//! `hostler-agent --check`: what the agent would start with, for a person. It changes nothing and needs no
//! coordinator.

use std::io::{self, Write};

use hostler_common::rpc::hostler::agent::v1::HostReport;

use crate::hypervisor::Look;
use crate::wiring::Parts;

/// Writes what was found to `out`. Blocks: it looks at the host.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(parts: &Parts, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "host          {}", parts.host)?;
    writeln!(out, "certificate   {}", parts.credentials.identity())?;
    writeln!(out, "valid until   {}", parts.credentials.not_after())?;
    writeln!(out, "coordinator   {} (not dialled)", parts.config.coordinator)?;
    writeln!(out, "state         {}", parts.config.state_dir)?;
    let report = parts.hypervisors.report(Look::Whole);
    for line in lines(&report) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "The configuration is good.")
}

/// The report, a line for each thing.
fn lines(report: &HostReport) -> Vec<String> {
    let mut lines = Vec::new();
    let inventory = report.inventory.clone().unwrap_or_default();
    let libvirt = inventory.libvirt.unwrap_or_default();
    lines.push(match libvirt.problem.is_empty() {
        true => format!("libvirt       {} at {}", libvirt.version, libvirt.uri),
        false => format!("libvirt       no answer at {}: {}", libvirt.uri, libvirt.problem),
    });
    lines.push(format!(
        "machine       {} CPU threads, {} MB",
        inventory.cpu_threads, inventory.memory_mb
    ));
    for gpu in inventory.gpus {
        lines.push(format!(
            "gpu           {} {} at {}",
            gpu.brand, gpu.model, gpu.pci_address
        ));
    }
    for storage in inventory.shared_storage {
        let state = match storage.usable {
            true => "usable".to_owned(),
            false => format!("not usable: {}", storage.problem),
        };
        lines.push(format!("storage       {} is {state}", storage.path));
    }
    for hypervisor in &report.hypervisors {
        let observed = hypervisor
            .observed()
            .as_str_name()
            .trim_start_matches("OBSERVED_")
            .to_lowercase()
            .replace('_', " ");
        let detail = match hypervisor.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        lines.push(format!("hypervisor    {} is {observed}{detail}", hypervisor.id));
    }
    lines
}
