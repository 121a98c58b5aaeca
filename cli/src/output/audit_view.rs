//! A line of the audit log for people. What is not as this version writes it is shown as it is.

use serde::Deserialize;
use serde_json::Value;

use super::text::{escape, requester};

/// The longest request that is shown, in characters; --json has it whole.
const REQUEST_AT_MOST: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    time: String,
    event: String,
    identity: String,
    address: String,
    rpc: String,
    request: Value,
    code: String,
    message: String,
    operations: Vec<String>,
    held_back: u64,
}

/// `2026-11-21T22:56:40Z  admin/ada at 192.0.2.7:40312  CreateToken {"host":"hv7"}: OK`.
pub(crate) fn words(line: &str) -> String {
    let Ok(it) = serde_json::from_str::<Line>(line) else {
        return escape(line);
    };
    let who = match (it.identity.is_empty(), it.address.is_empty()) {
        (false, false) => format!("{} at {}", requester(&it.identity), it.address),
        (false, true) => requester(&it.identity),
        (true, false) => it.address.clone(),
        (true, true) => "-".to_owned(),
    };
    let mut what = match it.rpc.rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => it.event.replace('_', " "),
    };
    if !it.request.is_null() {
        let request = it.request.to_string();
        let start: String = request.chars().take(REQUEST_AT_MOST).collect();
        let cut = if start.len() < request.len() { "…" } else { "" };
        what.push_str(&format!(" {start}{cut}"));
    }
    let mut outcome = it.code;
    if !it.message.is_empty() {
        outcome.push_str(&format!(" ({})", it.message));
    }
    if !it.operations.is_empty() {
        outcome.push_str(&format!(" {}", it.operations.join(" ")));
    }
    if it.held_back > 0 {
        outcome.push_str(&format!("; {} more like it", it.held_back));
    }
    escape(&format!("{}  {who}  {what}: {outcome}", it.time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_what_and_what_came_of_it() {
        let line = r#"{"time":"2026-11-21T22:56:40Z","event":"call","identity":"spiffe://example.org/client/admin/ada",
            "address":"192.0.2.7:40312","rpc":"/hostler.site.v1.SiteService/CreateToken","request":{"host":"hv7"},
            "code":"PERMISSION_DENIED","message":"no\u001b[2J","operations":[],"duration_ms":3}"#;
        assert_eq!(
            words(line),
            "2026-11-21T22:56:40Z  admin/ada at 192.0.2.7:40312  CreateToken {\"host\":\"hv7\"}: PERMISSION_DENIED (no\\u{1b}[2J)"
        );
        let storm = r#"{"time":"T","event":"handshake_refused","address":"192.0.2.9:1","code":"REFUSED","held_back":93}"#;
        assert_eq!(
            words(storm),
            "T  192.0.2.9:1  handshake refused: REFUSED; 93 more like it"
        );
        assert_eq!(words("nonsense\u{7}"), "nonsense\\u{7}");
    }
}
