//! Revocations as the log tells of them, for a store that was restored from a copy of before them.
//!
//! It only reads. The invariant: what may have been revoked is told, also when whoever asked was gone before the answer.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::time::Duration;

use hostler_common::units::UnixMillis;
use hostler_pki::Identity;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{place, writer};

/// The rpc that revokes.
const RPC: &str = "/hostler.site.v1.SiteService/RevokeIdentity";

/// Answers after which a revocation holds, or may.
const HOLDING: [&str; 3] = ["OK", "DEADLINE_EXCEEDED", "CANCELLED"];

/// A revocation that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retold {
    /// Whose certificates.
    pub identity: Identity,
    /// Who asked.
    pub by: Identity,
    /// Why.
    pub reason: String,
    /// When it was asked for.
    pub asked_at: UnixMillis,
    /// When it was answered.
    pub answered_at: UnixMillis,
}

#[derive(Deserialize)]
struct Line {
    time: String,
    identity: String,
    rpc: String,
    request: Asked,
    code: String,
    #[serde(default)]
    duration_ms: u64,
}

#[derive(Deserialize)]
struct Asked {
    subject: String,
    #[serde(default)]
    reason: String,
}

/// Every revocation in the log of `data_dir`, the oldest first. Blocks.
pub fn revocations(data_dir: &Path) -> Vec<Retold> {
    let files = writer::files(&place(data_dir)).into_iter();
    let lines = files.flat_map(|(file, length)| {
        let lines = BufReader::new(file.take(length)).split(b'\n');
        let told = |error: &std::io::Error| tracing::error!(%error, "the audit log cannot be read to its end: whoever it calls revoked there is not looked for");
        // What cannot be read is passed over: the rest is worth having.
        lines.map_while(move |line| line.inspect_err(told).ok())
    });
    lines.filter_map(|line| retold(&line)).collect()
}

fn retold(line: &[u8]) -> Option<Retold> {
    let text = std::str::from_utf8(line).ok()?;
    if !text.contains(RPC) {
        return None;
    }
    let line: Line = serde_json::from_str(text).ok()?;
    if line.rpc != RPC || !HOLDING.contains(&line.code.as_str()) {
        return None;
    }
    let by: Identity = line.identity.parse().ok()?;
    let subject = line.request.subject;
    let identity = format!("spiffe://{}/{subject}", by.trust_domain).parse().ok()?;
    let at = OffsetDateTime::parse(&line.time, &Rfc3339).ok()?;
    let answered_at = UnixMillis(i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()?);
    let took = Duration::from_millis(line.duration_ms);
    Some(Retold {
        identity,
        by,
        reason: line.request.reason,
        asked_at: UnixMillis(answered_at.0.saturating_sub_unsigned(millis(took))),
        answered_at,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(subject: &str, code: &str) -> String {
        format!(
            r#"{{"time":"2026-11-22T07:00:00.500Z","event":"call","identity":"spiffe://a/client/admin/ada","address":"","rpc":"{RPC}","request":{{"subject":"{subject}","reason":"stolen"}},"code":"{code}","message":"","duration_ms":20}}"#
        )
    }

    #[test]
    fn what_holds_or_may_hold_is_told_and_what_was_refused_is_not() {
        let told = retold(line("agent/h1", "OK").as_bytes()).unwrap();
        assert_eq!(told.identity.to_string(), "spiffe://a/agent/h1");
        assert_eq!(
            (told.reason.as_str(), told.by.to_string().as_str()),
            ("stolen", "spiffe://a/client/admin/ada")
        );
        assert_eq!(told.answered_at.0 - told.asked_at.0, 20);
        assert!(retold(line("client/viewer/v", "CANCELLED").as_bytes()).is_some());
        for refused in [
            line("agent/h1", "NOT_FOUND"),
            line("agent/../h1", "OK"),
            line("agent/h1", "OK")[..90].to_owned(),
        ] {
            assert_eq!(retold(refused.as_bytes()), None, "{refused}");
        }
    }
}
