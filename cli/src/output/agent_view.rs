//! Agents as `--output json` prints them and for people. Field names are stable, since programs read them; times are
//! RFC 3339 in UTC.

use comfy_table::{Cell, Color};
use hostler_common::rpc::hostler::site::v1 as site;
use serde::Serialize;

use super::Terminal;
use super::sheet::{self, Column, Rank};
use super::text::{escape, or_dash, unless_empty};
use super::view::rfc3339;

/// The document of `hostler agents list`.
#[derive(Debug, Serialize)]
pub(crate) struct Agents<'a> {
    pub(crate) agents: &'a [Agent],
}

/// A host with its agent.
#[derive(Debug, Serialize)]
pub(crate) struct Agent {
    pub(crate) host: String,
    pub(crate) connected: bool,
    /// Null without a session.
    pub(crate) address: Option<String>,
    /// Null, as the two below, when it was not heard since the coordinator started.
    pub(crate) version: Option<String>,
    pub(crate) last_heard: Option<String>,
    pub(crate) certificate_ends: Option<String>,
    pub(crate) certificate_ca: Option<String>,
    pub(crate) revoked: Option<String>,
    pub(crate) hypervisors: Vec<String>,
    pub(crate) pools: Vec<String>,
}

impl From<site::Agent> for Agent {
    fn from(it: site::Agent) -> Self {
        Self {
            host: it.host,
            connected: it.connected,
            address: unless_empty(it.address),
            version: unless_empty(it.version),
            last_heard: it.last_heard.map(rfc3339),
            certificate_ends: it.certificate_not_after.map(rfc3339),
            certificate_ca: unless_empty(it.certificate_ca),
            revoked: it.revoked_at.map(rfc3339),
            hypervisors: it.hypervisor_ids,
            pools: it.pools,
        }
    }
}

const AGENTS: [Column; 9] = [
    ("HOST", Rank::Name),
    ("SESSION", Rank::Whole),
    ("ADDRESS", Rank::Optional(3)),
    ("VERSION", Rank::Optional(5)),
    ("LAST HEARD", Rank::Optional(4)),
    ("CERTIFICATE ENDS", Rank::Optional(6)),
    ("OF CA", Rank::Optional(1)),
    ("REVOKED", Rank::Optional(2)),
    ("HAS", Rank::Text(16)),
];

/// `hostler agents list`.
pub(crate) fn agents(list: &[Agent], terminal: Terminal) -> String {
    if list.is_empty() {
        return "no host has an agent".into();
    }
    let row = |it: &Agent| {
        let (session, colour) = match it.connected {
            true => ("connected", Color::Green),
            false => ("not connected", Color::Yellow),
        };
        let has: Vec<_> = it.hypervisors.iter().chain(&it.pools).cloned().collect();
        let optional = |text: &Option<String>| Cell::new(or_dash(escape(text.as_deref().unwrap_or(""))));
        vec![
            Cell::new(escape(&it.host)),
            Cell::new(session).fg(colour),
            optional(&it.address),
            optional(&it.version),
            optional(&it.last_heard),
            optional(&it.certificate_ends),
            optional(&it.certificate_ca),
            optional(&it.revoked),
            Cell::new(or_dash(escape(&has.join(", ")))),
        ]
    };
    sheet::draw(&AGENTS, list.iter().map(row).collect(), terminal)
}
