//! libvirt networks. Each verb accepts that it has been done.

use super::{Libvirt, LibvirtFault, Presence, already, found};
use crate::config::NetworkName;

impl Libvirt {
    /// Whether the network is there.
    ///
    /// # Errors
    /// When libvirt cannot tell.
    pub fn network(&self, name: &NetworkName) -> Result<Presence, LibvirtFault> {
        let active =
            found(self.call(|connection| connection.lookup_network_by_name(name.as_str())?.is_active()))?;
        Ok(match active {
            None => Presence::Absent,
            Some(false) => Presence::Inactive,
            Some(true) => Presence::Active,
        })
    }

    /// Defines a network, not active.
    ///
    /// # Errors
    /// When libvirt refuses `xml`.
    pub fn define_network(&self, xml: &str) -> Result<(), LibvirtFault> {
        self.call(|connection| connection.define_network_xml(xml).map(drop))
    }

    /// Makes it active.
    ///
    /// # Errors
    /// When it does not become active.
    pub fn start_network(&self, name: &NetworkName) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| connection.lookup_network_by_name(name.as_str())?.create());
        already(result, || Ok(self.network(name)? == Presence::Active))
    }

    /// Makes it inactive.
    ///
    /// # Errors
    /// When it stays active.
    pub fn stop_network(&self, name: &NetworkName) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| connection.lookup_network_by_name(name.as_str())?.destroy());
        already(result, || Ok(self.network(name)? != Presence::Active))
    }

    /// Forgets its definition.
    ///
    /// # Errors
    /// When it stays defined.
    pub fn undefine_network(&self, name: &NetworkName) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| connection.lookup_network_by_name(name.as_str())?.undefine());
        already(result, || Ok(self.network(name)? == Presence::Absent))
    }
}
