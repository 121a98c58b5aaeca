//! The site as `--output json` prints it and for people: status, agents, tokens, revocations. Field names are stable,
//! since programs read them; times are RFC 3339 in UTC.

use comfy_table::{Cell, Color};
use hostler_common::rpc::hostler::site::v1 as site;
use serde::Serialize;

use super::Terminal;
use super::sections::Page;
use super::sheet::{self, Column, Rank};
use super::text::{escape, or_dash, requester};
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
}

impl From<site::GetStatusResponse> for SiteStatus {
    fn from(it: site::GetStatusResponse) -> Self {
        let ca = |ca: site::TrustedCa| TrustedCa {
            name: ca.name,
            fingerprint: ca.fingerprint,
            ends: ca.not_after.map(rfc3339),
            signs: ca.signs,
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
    pub(crate) revoked: Option<String>,
    pub(crate) hypervisors: Vec<String>,
    pub(crate) pools: Vec<String>,
}

fn unless_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
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
            revoked: it.revoked_at.map(rfc3339),
            hypervisors: it.hypervisor_ids,
            pools: it.pools,
        }
    }
}

const AGENTS: [Column; 8] = [
    ("HOST", Rank::Name),
    ("SESSION", Rank::Whole),
    ("ADDRESS", Rank::Optional(3)),
    ("VERSION", Rank::Optional(5)),
    ("LAST HEARD", Rank::Optional(4)),
    ("CERTIFICATE ENDS", Rank::Optional(6)),
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
            optional(&it.revoked),
            Cell::new(or_dash(escape(&has.join(", ")))),
        ]
    };
    sheet::draw(&AGENTS, list.iter().map(row).collect(), terminal)
}

/// The document of `hostler tokens list`.
#[derive(Debug, Serialize)]
pub(crate) struct Tokens<'a> {
    pub(crate) tokens: &'a [Token],
}

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenState {
    Open,
    Used,
    Expired,
    Revoked,
    Unknown,
}

impl TokenState {
    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// What is kept of a token.
#[derive(Debug, Serialize)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) state: TokenState,
    pub(crate) created_by: String,
    pub(crate) created: Option<String>,
    pub(crate) expires: Option<String>,
    /// When it was used or revoked.
    pub(crate) ended: Option<String>,
    /// From where it was used, or who revoked it.
    pub(crate) ended_by: Option<String>,
}

impl From<site::Token> for Token {
    fn from(it: site::Token) -> Self {
        let state = match it.state() {
            site::TokenState::Open => TokenState::Open,
            site::TokenState::Used => TokenState::Used,
            site::TokenState::Expired => TokenState::Expired,
            site::TokenState::Revoked => TokenState::Revoked,
            site::TokenState::Unspecified => TokenState::Unknown,
        };
        Self {
            state,
            id: it.id,
            host: it.host,
            created_by: it.created_by,
            created: it.created_at.map(rfc3339),
            expires: it.expires_at.map(rfc3339),
            ended: it.ended_at.map(rfc3339),
            ended_by: unless_empty(it.ended_by),
        }
    }
}

const TOKENS: [Column; 8] = [
    ("ID", Rank::Whole),
    ("HOST", Rank::Name),
    ("STATE", Rank::Whole),
    ("EXPIRES", Rank::Optional(5)),
    ("MADE BY", Rank::Optional(4)),
    ("MADE", Rank::Optional(1)),
    ("ENDED", Rank::Optional(2)),
    ("ENDED BY", Rank::Optional(3)),
];

/// `hostler tokens list`.
pub(crate) fn tokens(list: &[Token], terminal: Terminal) -> String {
    if list.is_empty() {
        return "no tokens".into();
    }
    let row = |it: &Token| {
        let optional = |text: &Option<String>| Cell::new(or_dash(escape(text.as_deref().unwrap_or(""))));
        vec![
            Cell::new(escape(&it.id)),
            Cell::new(escape(&it.host)),
            Cell::new(it.state.word()),
            optional(&it.expires),
            Cell::new(or_dash(requester(&it.created_by))),
            optional(&it.created),
            optional(&it.ended),
            Cell::new(or_dash(requester(it.ended_by.as_deref().unwrap_or("")))),
        ]
    };
    sheet::draw(&TOKENS, list.iter().map(row).collect(), terminal)
}

/// A new token with its secret.
#[derive(Serialize)]
pub(crate) struct CreatedToken {
    token: String,
    /// What to run on the host.
    command: String,
    kept: Token,
}

impl CreatedToken {
    /// `at` is where the host enrols, as HOST:PORT.
    pub(crate) fn of(it: site::CreateTokenResponse, at: &str) -> Self {
        Self {
            // What a coordinator says must not become another command in somebody's shell. The secret is pasted and no
            // part of it: it would stay in the shell's history, and show in the list of processes.
            command: format!("hostler-agent enrol --coordinator {} --token-file -", quoted(at)),
            token: it.token,
            kept: it.kept.unwrap_or_default().into(),
        }
    }

    /// The whole token, a secret.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/=+@[]".contains(c);
    match !word.is_empty() && word.chars().all(plain) && !word.contains('[') {
        true => word.to_owned(),
        false => format!("'{}'", escape(word).replace('\'', "'\\''")),
    }
}

/// `hostler tokens create` on a terminal.
pub(crate) fn created(it: &CreatedToken) -> String {
    let host = escape(&it.kept.host);
    format!(
        "token {} is for host {host}, for one use, until {}. As root on {host}:\n\n  {}\n\nThen paste the token, which is not \
         shown again:\n\n{}",
        escape(&it.kept.id),
        it.kept.expires.as_deref().unwrap_or("-"),
        it.command,
        escape(&it.token)
    )
}

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

/// The document of what was expunged.
#[derive(Debug, Serialize)]
pub(crate) struct Expunged<'a> {
    pub(crate) expunged: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_a_shell_would_read_is_quoted() {
        assert_eq!(quoted("c.example.org:1313"), "c.example.org:1313");
        assert_eq!(quoted("[::1]:1313"), "'[::1]:1313'");
        assert_eq!(quoted("a;rm -rf /"), "'a;rm -rf /'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
