//! Revocations as `--output json` prints them and for people. Field names are stable, since programs read them; times
//! are RFC 3339 in UTC.

use comfy_table::Cell;
use hostler_common::rpc::hostler::site::v1 as site;
use serde::Serialize;

use super::Terminal;
use super::sheet::{self, Column, Rank};
use super::text::{escape, or_dash, requester};
use super::view::rfc3339;

/// The document of `hostler clients revoked`.
#[derive(Debug, Serialize)]
pub(crate) struct Revocations<'a> {
    pub(crate) revocations: &'a [Revocation],
}

/// An identity whose certificates were revoked.
#[derive(Debug, Serialize)]
pub(crate) struct Revocation {
    pub(crate) subject: String,
    pub(crate) revoked: Option<String>,
    pub(crate) revoked_by: String,
    pub(crate) reason: String,
}

impl From<site::Revocation> for Revocation {
    fn from(it: site::Revocation) -> Self {
        Self {
            subject: it.subject,
            revoked: it.revoked_at.map(rfc3339),
            revoked_by: it.revoked_by,
            reason: it.reason,
        }
    }
}

const REVOCATIONS: [Column; 4] = [
    ("IDENTITY", Rank::Name),
    ("REVOKED", Rank::Whole),
    ("BY", Rank::Optional(1)),
    ("REASON", Rank::Text(16)),
];

/// `hostler clients revoked`.
pub(crate) fn revocations(list: &[Revocation], terminal: Terminal) -> String {
    if list.is_empty() {
        return "nothing is revoked".into();
    }
    let row = |it: &Revocation| {
        vec![
            Cell::new(escape(&it.subject)),
            Cell::new(it.revoked.as_deref().unwrap_or("-")),
            Cell::new(or_dash(requester(&it.revoked_by))),
            Cell::new(or_dash(escape(&it.reason))),
        ]
    };
    sheet::draw(&REVOCATIONS, list.iter().map(row).collect(), terminal)
}

/// The document of a revocation.
#[derive(Debug, Serialize)]
pub(crate) struct Revoked {
    #[serde(flatten)]
    revocation: Revocation,
    connections_ended: u32,
}

impl From<site::RevokeIdentityResponse> for Revoked {
    fn from(it: site::RevokeIdentityResponse) -> Self {
        Self {
            revocation: it.revocation.unwrap_or_default().into(),
            connections_ended: it.connections_ended,
        }
    }
}

/// `hostler agents revoke` and `hostler clients revoke`.
pub(crate) fn revoked(it: &Revoked) -> String {
    format!(
        "every certificate of {} made up to {} is revoked; connections ended: {}",
        escape(&it.revocation.subject),
        it.revocation.revoked.as_deref().unwrap_or("-"),
        it.connections_ended
    )
}
