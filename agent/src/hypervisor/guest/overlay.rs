//! The guest's own volume: an overlay on the base image, which is only read.
//!
//! A volume of its name is ours when it is an overlay of the base image or a disk of our domain. A destroy
//! refuses every other by its name: somebody's data may be in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::StepFault;
use super::Guest;
use crate::executor::step::{Before, Progress, Step, StepError};
use crate::libvirt::VolumeSeen;

/// Makes the overlay.
pub(super) struct CreateOverlay(pub(super) Arc<Guest>);

/// Deletes the overlay with what the guest wrote.
pub(super) struct DeleteOverlay {
    pub(super) guest: Arc<Guest>,
    pub(super) known: KnownOurs,
}

/// That the volume was seen to be a disk of our domain, which is gone when it is deleted. It counts for the
/// configuration whose base image has changed since the guest was made, and does not outlive a crash: then the
/// destroy fails and is undone, and the next one sees the domain again.
#[derive(Debug, Default, Clone)]
pub(super) struct KnownOurs(Arc<AtomicBool>);

impl Guest {
    /// The base image. It may have been copied there behind libvirt's back, so the pool looks again before it is
    /// missed. The overlay needs no such look: it is made and deleted through libvirt alone.
    pub(super) fn base_image(&self) -> Result<VolumeSeen, StepFault> {
        let (libvirt, pool, volume) = (&self.site.libvirt, &self.config.pool, &self.config.base_image);
        let what = || format!("look for volume {volume} in pool {pool}");
        if let Some(seen) = libvirt.volume(pool, volume).map_err(StepFault::libvirt(what()))? {
            return Ok(seen);
        }
        let refreshed = libvirt.refresh_pool(pool);
        refreshed.map_err(StepFault::libvirt(format!("refresh pool {pool}")))?;
        let seen = libvirt.volume(pool, volume).map_err(StepFault::libvirt(what()))?;
        seen.ok_or_else(|| StepFault::NoBaseImage {
            pool: pool.clone(),
            volume: volume.clone(),
        })
    }

    pub(super) fn overlay_seen(&self) -> Result<Option<VolumeSeen>, StepFault> {
        let (pool, volume) = (&self.config.pool, &self.overlay);
        let seen = self.site.libvirt.volume(pool, volume);
        seen.map_err(StepFault::libvirt(format!(
            "look for volume {volume} in pool {pool}"
        )))
    }

    fn overlay_before(&self) -> Result<Before, StepError> {
        Ok(match self.overlay_seen()? {
            None => Before::Absent,
            Some(_) => Before::Inactive,
        })
    }

    fn create_overlay(&self, before: Before) -> Result<(), StepFault> {
        let base = self.base_image()?;
        match self.overlay_seen()? {
            Some(seen) if seen.backing.as_ref() == Some(&base.path) => return Ok(()),
            // A volume that was not there before is this operation's own, cut short by a crash.
            Some(_) if before == Before::Absent => self.delete_overlay()?,
            Some(_) => {
                return Err(StepFault::ForeignVolume {
                    pool: self.config.pool.clone(),
                    volume: self.overlay.clone(),
                    expected: base.path.display().to_string(),
                });
            }
            None => {}
        }
        let xml = overlay_xml(self.overlay.as_str(), &base);
        let created = self.site.libvirt.create_volume(&self.config.pool, &xml);
        created.map_err(StepFault::libvirt(format!("create volume {}", self.overlay)))
    }

    /// Refuses a volume of the overlay's name that is not ours, while the domain can still be asked.
    pub(super) fn check_overlay(&self, known: &KnownOurs) -> Result<(), StepFault> {
        let Some(seen) = self.overlay_seen()? else {
            return Ok(());
        };
        let asked = self.site.libvirt.domain_has_disk(self.uuid, &seen.path);
        if asked.map_err(StepFault::libvirt(format!("look for domain {}", self.name)))? {
            known.0.store(true, Ordering::Relaxed);
        }
        self.ensure_ours(&seen, known)
    }

    fn ensure_ours(&self, seen: &VolumeSeen, known: &KnownOurs) -> Result<(), StepFault> {
        if known.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (pool, base) = (&self.config.pool, &self.config.base_image);
        let found = self.site.libvirt.volume(pool, base);
        let found = found.map_err(StepFault::libvirt(format!(
            "look for volume {base} in pool {pool}"
        )))?;
        // A base image that is gone was beside its overlay, under its name.
        let path = found.map_or_else(|| seen.path.with_file_name(base.as_str()), |base| base.path);
        if seen.backing.as_ref() == Some(&path) {
            return Ok(());
        }
        Err(StepFault::ForeignVolume {
            pool: pool.clone(),
            volume: self.overlay.clone(),
            expected: path.display().to_string(),
        })
    }

    fn delete_overlay(&self) -> Result<(), StepFault> {
        let deleted = self.site.libvirt.delete_volume(&self.config.pool, &self.overlay);
        deleted.map_err(StepFault::libvirt(format!("delete volume {}", self.overlay)))
    }
}

fn overlay_xml(name: &str, base: &VolumeSeen) -> String {
    // A name is an id with letters, digits, dots, dashes; a path and a format come from libvirt.
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<volume>\
           <name>{}</name>\
           <capacity unit='bytes'>{}</capacity>\
           <allocation>0</allocation>\
           <target><format type='qcow2'/></target>\
           <backingStore><path>{}</path><format type='{}'/></backingStore>\
         </volume>",
        escape(name),
        base.capacity_bytes,
        escape(&base.path.to_string_lossy()),
        escape(&base.format),
    )
}

impl Step for CreateOverlay {
    fn name(&self) -> String {
        format!("create volume {}", self.0.overlay)
    }

    fn deadline(&self) -> Duration {
        self.0.site.calls(4)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.0.overlay_before()
    }

    fn apply(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        if before != Before::Absent {
            progress.say(format!(
                "volume {} exists already and is kept as it is",
                self.0.overlay
            ));
        }
        Ok(self.0.create_overlay(before)?)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        match before {
            Before::Absent => Ok(self.0.delete_overlay()?),
            Before::Nothing | Before::Inactive | Before::Active => Ok(()),
        }
    }
}

impl Step for DeleteOverlay {
    fn name(&self) -> String {
        format!("delete volume {}", self.guest.overlay)
    }

    fn deadline(&self) -> Duration {
        self.guest.site.calls(6)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.guest.overlay_before()
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        let Some(seen) = self.guest.overlay_seen()? else {
            return Ok(());
        };
        self.guest.ensure_ours(&seen, &self.known)?;
        Ok(self.guest.delete_overlay()?)
    }

    fn undo(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        // What the guest wrote cannot come back. A fresh overlay lets the guest run again, and it is the last
        // step, so this is reached only when the deletion itself failed or its outcome was unclear.
        if before != Before::Absent && self.guest.overlay_seen()?.is_none() {
            progress.say(format!(
                "volume {} is made anew from the base image",
                self.guest.overlay
            ));
            self.guest.create_overlay(Before::Absent)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_has_the_size_and_the_format_of_its_base() {
        let base = VolumeSeen {
            path: "/pool/a&b.img".into(),
            format: "raw".into(),
            capacity_bytes: 10,
            backing: None,
        };
        let xml = overlay_xml("hostler-a.qcow2", &base);
        let document = roxmltree::Document::parse(&xml).unwrap();
        let text = |tag| {
            document
                .descendants()
                .find(|node| node.has_tag_name(tag))
                .unwrap()
                .text()
        };
        assert_eq!(text("path"), Some("/pool/a&b.img"));
        assert_eq!(text("capacity"), Some("10"));
    }
}
