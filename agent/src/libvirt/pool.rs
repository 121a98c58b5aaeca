//! libvirt storage pools. Each verb accepts that it has been done, and none touches what a pool holds.

use super::{Libvirt, LibvirtFault, Presence, already, found};
use crate::config::PoolName;

impl Libvirt {
    /// Whether the pool is there.
    ///
    /// # Errors
    /// When libvirt cannot tell.
    pub fn pool(&self, name: &PoolName) -> Result<Presence, LibvirtFault> {
        let active = found(
            self.call(|connection| connection.lookup_storage_pool_by_name(name.as_str())?.is_active()),
        )?;
        Ok(match active {
            None => Presence::Absent,
            Some(false) => Presence::Inactive,
            Some(true) => Presence::Active,
        })
    }

    /// Defines a pool, not active.
    ///
    /// # Errors
    /// When libvirt refuses `xml`.
    pub fn define_pool(&self, xml: &str) -> Result<(), LibvirtFault> {
        self.call(|connection| connection.define_storage_pool_xml(xml, 0).map(drop))
    }

    /// Makes it active. It does not build it: what the pool points at must be there.
    ///
    /// # Errors
    /// When it does not become active.
    pub fn start_pool(&self, name: &PoolName) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| connection.lookup_storage_pool_by_name(name.as_str())?.create(0));
        already(result, || Ok(self.pool(name)? == Presence::Active))
    }

    /// Makes it inactive. What it holds stays.
    ///
    /// # Errors
    /// When it stays active.
    pub fn stop_pool(&self, name: &PoolName) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| connection.lookup_storage_pool_by_name(name.as_str())?.destroy());
        already(result, || Ok(self.pool(name)? != Presence::Active))
    }

    /// Forgets its definition. What it holds stays.
    ///
    /// # Errors
    /// When it stays defined.
    pub fn undefine_pool(&self, name: &PoolName) -> Result<(), LibvirtFault> {
        let result =
            self.call(|connection| connection.lookup_storage_pool_by_name(name.as_str())?.undefine());
        already(result, || Ok(self.pool(name)? == Presence::Absent))
    }
}
