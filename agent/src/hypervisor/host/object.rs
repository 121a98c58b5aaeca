//! Networks and pools: libvirt objects that are defined, and active while the host is in service.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Site, StepFault};
use super::Host;
use super::drain::Verdict;
use crate::config::{NetworkName, PoolName};
use crate::executor::step::{Before, Progress, Step, StepError};
use crate::libvirt::{Libvirt, LibvirtFault, Presence};

/// Something that libvirt defines and starts. Its Display names it, as "network default".
pub(super) trait Object: fmt::Display + Send + Sync {
    /// Its definition, where the configuration gives one.
    fn xml(&self) -> Option<&str>;
    fn look(&self, libvirt: &Libvirt) -> Result<Presence, LibvirtFault>;
    fn define(&self, libvirt: &Libvirt, xml: &str) -> Result<(), LibvirtFault>;
    fn start(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault>;
    fn stop(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault>;
    fn undefine(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault>;

    /// Whether it is there.
    fn presence(&self, libvirt: &Libvirt) -> Result<Presence, StepFault> {
        self.look(libvirt)
            .map_err(StepFault::libvirt(format!("look for {self}")))
    }

    /// Defines it where needed and starts it.
    fn ensure_active(&self, libvirt: &Libvirt) -> Result<(), StepFault> {
        match self.presence(libvirt)? {
            Presence::Active => return Ok(()),
            Presence::Inactive => {}
            Presence::Absent => {
                let xml = self.xml().ok_or_else(|| StepFault::NotDefined {
                    object: self.to_string(),
                })?;
                self.define(libvirt, xml)
                    .map_err(StepFault::libvirt(format!("define {self}")))?;
            }
        }
        self.start(libvirt)
            .map_err(StepFault::libvirt(format!("start {self}")))
    }
}

/// A network, and what defines it.
pub(super) struct Network {
    name: NetworkName,
    xml: Option<String>,
}

impl Network {
    pub(super) fn new(name: NetworkName, xml: Option<String>) -> Self {
        Self { name, xml }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network {}", self.name)
    }
}

impl Object for Network {
    fn xml(&self) -> Option<&str> {
        self.xml.as_deref()
    }
    fn look(&self, libvirt: &Libvirt) -> Result<Presence, LibvirtFault> {
        libvirt.network(&self.name)
    }
    fn define(&self, libvirt: &Libvirt, xml: &str) -> Result<(), LibvirtFault> {
        libvirt.define_network(xml)
    }
    fn start(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault> {
        libvirt.start_network(&self.name)
    }
    fn stop(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault> {
        libvirt.stop_network(&self.name)
    }
    fn undefine(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault> {
        libvirt.undefine_network(&self.name)
    }
}

/// A storage pool, and what defines it.
pub(super) struct Pool {
    name: PoolName,
    xml: Option<String>,
}

impl Pool {
    pub(super) fn new(name: PoolName, xml: Option<String>) -> Self {
        Self { name, xml }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}", self.name)
    }
}

impl Object for Pool {
    fn xml(&self) -> Option<&str> {
        self.xml.as_deref()
    }
    fn look(&self, libvirt: &Libvirt) -> Result<Presence, LibvirtFault> {
        libvirt.pool(&self.name)
    }
    fn define(&self, libvirt: &Libvirt, xml: &str) -> Result<(), LibvirtFault> {
        libvirt.define_pool(xml)
    }
    fn start(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault> {
        libvirt.start_pool(&self.name)
    }
    fn stop(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault> {
        libvirt.stop_pool(&self.name)
    }
    fn undefine(&self, libvirt: &Libvirt) -> Result<(), LibvirtFault> {
        libvirt.undefine_pool(&self.name)
    }
}

fn before(presence: Presence) -> Before {
    match presence {
        Presence::Absent => Before::Absent,
        Presence::Inactive => Before::Inactive,
        Presence::Active => Before::Active,
    }
}

/// Defines an object where needed and makes it active.
pub(super) struct Bring<O> {
    object: Arc<O>,
    site: Arc<Site>,
}

impl<O: Object> Bring<O> {
    pub(super) fn new(object: Arc<O>, site: Arc<Site>) -> Self {
        Self { object, site }
    }
}

impl<O: Object> Step for Bring<O> {
    fn name(&self) -> String {
        format!("activate {}", self.object)
    }

    fn deadline(&self) -> Duration {
        self.site.calls(4)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(before(self.object.presence(&self.site.libvirt)?))
    }

    fn apply(&self, before: Before, progress: &Progress) -> Result<(), StepError> {
        if before == Before::Active {
            progress.say(format!("{} is active already", self.object));
        }
        Ok(self.object.ensure_active(&self.site.libvirt)?)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        let Self { object, site } = self;
        match before {
            Before::Active | Before::Nothing => return Ok(()),
            Before::Inactive | Before::Absent => {}
        }
        if object.presence(&site.libvirt)? == Presence::Active {
            object
                .stop(&site.libvirt)
                .map_err(StepFault::libvirt(format!("stop {object}")))?;
        }
        if before == Before::Absent && object.presence(&site.libvirt)? != Presence::Absent {
            object
                .undefine(&site.libvirt)
                .map_err(StepFault::libvirt(format!("undefine {object}")))?;
        }
        Ok(())
    }
}

/// Makes an object inactive, unless domains that were left running may need it. It stays defined.
pub(super) struct Take<O> {
    object: Arc<O>,
    host: Arc<Host>,
}

impl<O: Object> Take<O> {
    pub(super) fn new(object: Arc<O>, host: Arc<Host>) -> Self {
        Self { object, host }
    }
}

impl<O: Object> Step for Take<O> {
    fn name(&self) -> String {
        format!("deactivate {}", self.object)
    }

    fn deadline(&self) -> Duration {
        self.host.site.calls(4)
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(before(self.object.presence(&self.host.site.libvirt)?))
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        let Self { object, host } = self;
        if object.presence(&host.site.libvirt)? != Presence::Active {
            return Ok(());
        }
        // Asked again: a domain may have started since the host was drained.
        if let Verdict::Left { count } = host.drained()? {
            progress.say(format!("{object} stays active for {count} running domains"));
            return Ok(());
        }
        object
            .stop(&host.site.libvirt)
            .map_err(StepFault::libvirt(format!("stop {object}")))?;
        Ok(())
    }

    /// A transient object, which libvirt forgot when it stopped, is defined again where there is its XML.
    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        match before {
            Before::Active => Ok(self.object.ensure_active(&self.host.site.libvirt)?),
            Before::Nothing | Before::Absent | Before::Inactive => Ok(()),
        }
    }
}
