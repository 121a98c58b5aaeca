//! Tokens as `--output json` prints them and for people. Only a new token shows its secret, once. Field names are
//! stable, since programs read them; times are RFC 3339 in UTC.

use comfy_table::Cell;
use hostler_common::rpc::hostler::site::v1 as site;
use serde::Serialize;

use super::Terminal;
use super::sheet::{self, Column, Rank};
use super::text::{escape, or_dash, requester, unless_empty};
use super::view::rfc3339;

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
