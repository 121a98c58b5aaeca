//! libvirt domains. Each verb but `define_domain` takes the UUID, so that none touches a domain of another
//! owner that happens to have the name.

use std::path::Path;

use uuid::Uuid;
use virt::sys;

use super::{Libvirt, LibvirtFault, already, found};
use crate::config::DomainName;

/// A domain as libvirt lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomainSeen {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
}

/// What a domain does, of libvirt's states what makes a difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// It runs.
    Running,
    /// It exists in memory and does not run: paused, suspended or going down.
    Halted,
    /// It is off.
    Off,
}

impl DomainState {
    fn of(state: u32) -> Self {
        match state {
            sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => Self::Running,
            sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED => Self::Off,
            _ => Self::Halted,
        }
    }
}

pub(super) fn has_disk(xml: &str, file: &Path) -> bool {
    let Ok(document) = roxmltree::Document::parse(xml) else {
        return false;
    };
    // The disk's own source, and not those of what backs it, which are deeper.
    let sources = document
        .descendants()
        .filter(|node| node.has_tag_name("disk"))
        .flat_map(|disk| disk.children().filter(|node| node.has_tag_name("source")));
    let files = sources.filter_map(|source| source.attribute("file").or_else(|| source.attribute("dev")));
    files.map(Path::new).any(|found| found == file)
}

impl Libvirt {
    /// The state of a domain, or nothing when there is none.
    ///
    /// # Errors
    /// When libvirt cannot tell.
    pub fn domain(&self, uuid: Uuid) -> Result<Option<DomainState>, LibvirtFault> {
        let state = self.call(|connection| {
            let domain = connection.lookup_domain_by_uuid(uuid)?;
            Ok(domain.state()?.0.to_raw())
        });
        Ok(found(state)?.map(DomainState::of))
    }

    /// The UUID of the domain of that name.
    ///
    /// # Errors
    /// When libvirt cannot tell.
    pub fn domain_named(&self, name: &DomainName) -> Result<Option<Uuid>, LibvirtFault> {
        found(self.call(|connection| connection.lookup_domain_by_name(name.as_str())?.uuid()))
    }

    /// Whether the domain has the file as a disk. False when there is no domain.
    ///
    /// # Errors
    /// When libvirt cannot tell.
    pub fn domain_has_disk(&self, uuid: Uuid, file: &Path) -> Result<bool, LibvirtFault> {
        let xml = found(self.call(|connection| connection.lookup_domain_by_uuid(uuid)?.xml_desc(0)))?;
        Ok(xml.is_some_and(|xml| has_disk(&xml, file)))
    }

    /// Defines a domain, not running, or replaces the definition of the one with its name and UUID.
    ///
    /// # Errors
    /// When libvirt refuses `xml`.
    pub fn define_domain(&self, xml: &str) -> Result<(), LibvirtFault> {
        self.call(|connection| connection.define_domain_xml(xml).map(drop))
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn start_domain(&self, uuid: Uuid) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| connection.lookup_domain_by_uuid(uuid)?.create());
        already(result, || Ok(self.domain(uuid)? == Some(DomainState::Running)))
    }

    /// Ends it at once, as pulling the plug does.
    ///
    /// # Errors
    /// When it still runs.
    pub fn destroy_domain(&self, uuid: Uuid) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| connection.lookup_domain_by_uuid(uuid)?.destroy());
        already(result, || {
            Ok(matches!(self.domain(uuid)?, None | Some(DomainState::Off)))
        })
    }

    /// Forgets its definition with all that libvirt keeps beside it.
    ///
    /// # Errors
    /// When it stays defined.
    pub fn undefine_domain(&self, uuid: Uuid) -> Result<(), LibvirtFault> {
        let all = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        let undefine =
            |flags| self.call(|connection| connection.lookup_domain_by_uuid(uuid)?.undefine_flags(flags));
        let mut result = undefine(all);
        if let Err(LibvirtFault::Unsupported { .. } | LibvirtFault::InvalidXml { .. }) = result {
            // A driver without checkpoints or firmware, like libvirt's test driver.
            result = undefine(0);
        }
        already(result, || Ok(self.domain(uuid)?.is_none()))
    }

    /// Every running domain, in the order of names.
    ///
    /// # Errors
    /// When libvirt cannot tell.
    pub fn running_domains(&self) -> Result<Vec<DomainSeen>, LibvirtFault> {
        let mut seen = self.call(|connection| {
            let domains = connection.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
            let seen = domains.iter().map(|domain| {
                Ok(DomainSeen {
                    name: domain.name()?,
                    uuid: domain.uuid()?,
                })
            });
            seen.collect::<Result<Vec<_>, virt::error::Error>>()
        })?;
        seen.sort();
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_domains_own_and_not_what_backs_it() {
        let xml = "<domain><devices><disk><source file='/p/hostler-a.qcow2'/>\
                   <backingStore><source file='/p/base.qcow2'/></backingStore></disk>\
                   <disk><source dev='/dev/vg/data'/></disk></devices></domain>";
        assert!(has_disk(xml, Path::new("/p/hostler-a.qcow2")));
        assert!(has_disk(xml, Path::new("/dev/vg/data")));
        assert!(!has_disk(xml, Path::new("/p/base.qcow2")));
        assert!(!has_disk("nonsense", Path::new("/p/base.qcow2")));
    }
}
