//! `hostler-agent --check`: what the agent would start with, for a person. It changes nothing and needs no
//! coordinator.

use std::io::{self, Write};

use hostler_common::bytes::Bytes;
use hostler_common::rpc::hostler::agent::v1::{DeviceRole, HostReport, PoolDevice, PoolReport};
use hostler_common::units::UnixMillis;

use crate::hypervisor::Look;
use crate::identity::files::Own;
use crate::identity::schedule::Schedule;
use crate::identity::words::left;
use crate::wiring::Parts;

/// Writes what was found to `out`. Blocks: it looks at the host.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(parts: &Parts, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "host          {}", parts.host)?;
    writeln!(out, "certificate   {}", parts.own.identity)?;
    writeln!(out, "valid until   {}", validity(&parts.own, UnixMillis::now()))?;
    writeln!(out, "coordinator   {} (not dialled)", parts.config.coordinator)?;
    writeln!(out, "state         {}", parts.config.state_dir)?;
    let report = parts.observe()(Look::Whole);
    for line in lines(&report)
        .into_iter()
        .chain(report.pools.iter().flat_map(pool))
    {
        writeln!(out, "{line}")?;
    }
    if let Some(backups) = parts.owned.as_ref().and_then(|owned| owned.backups.as_ref()) {
        let repository = backups.repository_for_people();
        match backups.list() {
            Ok(all) => writeln!(out, "backups       {} in {repository}", all.len())?,
            Err(problem) => writeln!(out, "backups       none can be read from {repository}: {problem}")?,
        }
    }
    writeln!(out, "The configuration is good.")
}

/// How long the certificate lasts, and when the agent has it renewed.
fn validity(own: &Own, now: UnixMillis) -> String {
    let end = own.not_after;
    if own.is_expired(now) {
        return format!("{end}, which is over");
    }
    let renew_at = Schedule::of(own, now).renew_at;
    format!("{end} ({} left; renewed from {renew_at} on)", left(now, end))
}

/// The pool and its devices, a line each.
fn pool(pool: &PoolReport) -> Vec<String> {
    let (name, path) = (&pool.name, &pool.path);
    if !pool.problem.is_empty() {
        return vec![format!(
            "pool          {name} at {path} is not usable: {}",
            pool.problem
        )];
    }
    let device = |device: &PoolDevice| {
        let (what, capacity) = (&device.path, Bytes(device.capacity_bytes));
        match device.role() {
            DeviceRole::Member => format!(
                "device        {what}: {} of {capacity} in use by the pool",
                Bytes(device.share_bytes)
            ),
            DeviceRole::Spare => format!("device        {what}: spare, {capacity}"),
            DeviceRole::Missing => format!("device        {what}: missing"),
            DeviceRole::Refused | DeviceRole::Unspecified => {
                format!("device        {what}: no spare: {}", device.problem)
            }
        }
    };
    let first = format!(
        "pool          {name} ({}) at {path}: {} used of {}, spare {}, reserve {} %, data {}, metadata {}",
        pool.backend,
        Bytes(pool.used_bytes),
        Bytes(pool.size_bytes),
        Bytes(pool.spare_bytes),
        pool.reserve_percent,
        pool.data_profile,
        pool.metadata_profile
    );
    std::iter::once(first)
        .chain(pool.devices.iter().map(device))
        .collect()
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
