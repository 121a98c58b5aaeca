//! The site's state as `--output json` prints it and for people. Field names are stable, since programs read them;
//! times are RFC 3339 in UTC.

use hostler_common::rpc::hostler::site::v1 as site;
use serde::Serialize;

use super::sections::Page;
use super::text::escape;
use super::view::rfc3339;

/// The document of `hostler status`.
#[derive(Debug, Serialize)]
pub(crate) struct SiteStatus {
    pub(crate) coordinator: String,
    pub(crate) version: String,
    pub(crate) started: Option<String>,
    pub(crate) certificate_ends: Option<String>,
    pub(crate) cas: Vec<TrustedCa>,
    pub(crate) agents: u32,
    pub(crate) agents_connected: u32,
    pub(crate) hypervisors: u32,
    pub(crate) pools: u32,
    pub(crate) operations_unended: u32,
    pub(crate) needing_attention: u32,
    pub(crate) warnings: Vec<String>,
}

/// A CA that is trusted.
#[derive(Debug, Serialize)]
pub(crate) struct TrustedCa {
    pub(crate) name: String,
    pub(crate) fingerprint: String,
    pub(crate) ends: Option<String>,
    pub(crate) signs: bool,
    /// Agents and clients that would be cut off without it.
    pub(crate) certificates: u32,
}

impl From<site::GetStatusResponse> for SiteStatus {
    fn from(it: site::GetStatusResponse) -> Self {
        let ca = |ca: site::TrustedCa| TrustedCa {
            name: ca.name,
            fingerprint: ca.fingerprint,
            ends: ca.not_after.map(rfc3339),
            signs: ca.signs,
            certificates: ca.certificates,
        };
        Self {
            coordinator: it.coordinator,
            version: it.version,
            started: it.started_at.map(rfc3339),
            certificate_ends: it.certificate_not_after.map(rfc3339),
            cas: it.cas.into_iter().map(ca).collect(),
            agents: it.agents,
            agents_connected: it.agents_connected,
            hypervisors: it.hypervisors,
            pools: it.pools,
            operations_unended: it.operations_unended,
            needing_attention: it.needing_attention,
            warnings: it.warnings,
        }
    }
}

/// `hostler status`.
pub(crate) fn status(it: &SiteStatus) -> String {
    let mut page = Page::default();
    page.field("coordinator", escape(&it.coordinator));
    page.field("version", escape(&it.version));
    page.field("started", it.started.as_deref().unwrap_or(""));
    page.field("certificate", ends(it.certificate_ends.as_deref()));
    page.field(
        "agents",
        format!("{} of {} connected", it.agents_connected, it.agents),
    );
    page.field("hypervisors", it.hypervisors.to_string());
    page.field("pools", it.pools.to_string());
    page.field("operations", format!("{} unended", it.operations_unended));
    page.field("attention", format!("needed by {}", it.needing_attention));
    page.section("trusted CAs");
    for ca in &it.cas {
        let signs = if ca.signs { ", signs" } else { "" };
        page.line(&format!("{}, {}{signs}", ca.name, ends(ca.ends.as_deref())));
        page.line(&format!("  {}", ca.fingerprint));
        page.line(&format!(
            "  agents and clients with a certificate of it: {}",
            ca.certificates
        ));
    }
    page.section("to look at");
    for warning in &it.warnings {
        page.line(warning);
    }
    page.end()
}

fn ends(at: Option<&str>) -> String {
    at.map(|at| format!("ends {at}")).unwrap_or_default()
}
