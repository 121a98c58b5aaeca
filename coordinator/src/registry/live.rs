//! What is known of a host only while its session lives, or since it last did. Never stored.

use std::collections::HashMap;

use hostler_common::id::{Epoch, HypervisorId};
use hostler_common::rpc::hostler::agent::v1::Domain;
use hostler_common::units::UnixMillis;

/// The hypervisors of one report, with the domains that run on each.
pub type Reported = HashMap<HypervisorId, Vec<Domain>>;

/// One host since the coordinator started.
#[derive(Debug)]
pub struct HostLive {
    /// Of its newest session.
    epoch: Epoch,
    session: Session,
    agent_version: String,
    last_heard: UnixMillis,
    reported: Reported,
}

#[derive(Debug)]
enum Session {
    Connected,
    Gone,
}

/// Whether a host has a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has one.
    Connected,
    /// Not since the coordinator started.
    NeverSeen,
    /// It had one.
    Gone,
}

impl HostLive {
    pub(super) fn connected(epoch: Epoch, agent_version: &str) -> Self {
        Self {
            epoch,
            session: Session::Connected,
            agent_version: agent_version.to_owned(),
            last_heard: UnixMillis::now(),
            reported: Reported::new(),
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.session = Session::Gone;
        self.reported.clear();
    }

    pub(super) fn heard(&mut self) {
        self.last_heard = UnixMillis::now();
    }

    /// True when the report differs from the one before.
    pub(super) fn report(&mut self, reported: Reported) -> bool {
        let changed = self.reported != reported;
        self.reported = reported;
        changed
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The session of `epoch` is the newest, and has not ended.
    pub(super) fn is_connected_as(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && self.presence() == Presence::Connected
    }

    pub(super) fn presence(&self) -> Presence {
        match self.session {
            Session::Connected => Presence::Connected,
            Session::Gone => Presence::Gone,
        }
    }

    pub(super) fn agent_version(&self) -> &str {
        &self.agent_version
    }

    pub(super) fn last_heard(&self) -> UnixMillis {
        self.last_heard
    }

    /// The domains that run on a hypervisor; None when the live session has not reported it.
    pub(super) fn domains(&self, id: &HypervisorId) -> Option<&[Domain]> {
        self.reported.get(id).map(Vec::as_slice)
    }
}
