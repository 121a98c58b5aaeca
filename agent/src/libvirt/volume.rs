//! Volumes in libvirt storage pools.

use std::path::PathBuf;

use virt::storage_vol::StorageVol;

use super::{Libvirt, LibvirtFault, already, found};
use crate::config::{PoolName, VolumeName};

/// What libvirt says of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSeen {
    /// Where it is.
    pub path: PathBuf,
    /// Its format, as `qcow2`.
    pub format: String,
    /// Its size as a guest sees it.
    pub capacity_bytes: u64,
    /// What it is an overlay of.
    pub backing: Option<PathBuf>,
}

impl VolumeSeen {
    pub(super) fn parse(xml: &str) -> Option<Self> {
        let document = roxmltree::Document::parse(xml).ok()?;
        let root = document.root_element();
        let child = |parent: roxmltree::Node<'_, '_>, name: &str| {
            parent
                .children()
                .find(|node| node.has_tag_name(name))
                .map(|node| node.id())
        };
        let node = |id| document.get_node(id);
        let path_of = |parent| child(parent, "path").and_then(node)?.text().map(PathBuf::from);
        let target = child(root, "target").and_then(node)?;
        let format = child(target, "format")
            .and_then(node)
            .and_then(|format| format.attribute("type"));
        // libvirt writes capacities in bytes.
        let capacity = child(root, "capacity")
            .and_then(node)?
            .text()?
            .trim()
            .parse()
            .ok()?;
        Some(Self {
            path: path_of(target)?,
            format: format.unwrap_or("raw").to_owned(),
            capacity_bytes: capacity,
            backing: child(root, "backingStore").and_then(node).and_then(path_of),
        })
    }
}

impl Libvirt {
    /// The volume, or nothing when the pool does not know it. A file that appeared behind libvirt's back is
    /// known only after [`Libvirt::refresh_pool`].
    ///
    /// # Errors
    /// When the pool is absent or inactive, or libvirt cannot tell.
    pub fn volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<Option<VolumeSeen>, LibvirtFault> {
        let pool = self.call(|connection| connection.lookup_storage_pool_by_name(pool.as_str()))?;
        let xml = found(self.call(|_| pool.lookup_storage_vol_by_name(volume.as_str())?.xml_desc(0)))?;
        let parse = |xml: String| {
            VolumeSeen::parse(&xml).ok_or(LibvirtFault::InvalidXml {
                message: format!("libvirt describes the volume {volume} without path or capacity"),
            })
        };
        xml.map(parse).transpose()
    }

    /// Makes the pool look at what it holds. It takes long on a large one.
    ///
    /// # Errors
    /// When the pool is inactive or busy.
    pub fn refresh_pool(&self, pool: &PoolName) -> Result<(), LibvirtFault> {
        self.call(|connection| connection.lookup_storage_pool_by_name(pool.as_str())?.refresh(0))
            .map(drop)
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// When libvirt refuses `xml`, the volume exists, or the pool is full.
    pub fn create_volume(&self, pool: &PoolName, xml: &str) -> Result<(), LibvirtFault> {
        self.call(|connection| {
            let pool = connection.lookup_storage_pool_by_name(pool.as_str())?;
            StorageVol::create_xml(&pool, xml, 0).map(drop)
        })
    }

    /// Deletes a volume with its content. Accepts that there is none.
    ///
    /// # Errors
    /// When it is still there.
    pub fn delete_volume(&self, pool: &PoolName, volume: &VolumeName) -> Result<(), LibvirtFault> {
        let result = self.call(|connection| {
            let pool = connection.lookup_storage_pool_by_name(pool.as_str())?;
            pool.lookup_storage_vol_by_name(volume.as_str())?.delete(0)
        });
        already(result, || Ok(self.volume(pool, volume)?.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_read_from_what_libvirt_writes() {
        let seen = VolumeSeen::parse(
            "<volume type='file'><name>a</name><key>/p/a</key><capacity unit='bytes'>1048576</capacity>\
             <target><path>/p/a</path><format type='qcow2'/></target>\
             <backingStore><path>/p/base</path><format type='raw'/></backingStore></volume>",
        );
        let expected = VolumeSeen {
            path: "/p/a".into(),
            format: "qcow2".into(),
            capacity_bytes: 1 << 20,
            backing: Some("/p/base".into()),
        };
        assert_eq!(seen, Some(expected));
        assert_eq!(VolumeSeen::parse("<volume/>"), None);
    }
}
