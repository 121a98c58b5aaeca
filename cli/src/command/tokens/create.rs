//! `hostler tokens create`: shows a secret once. It goes to standard output alone, and into no record.

use std::time::Duration;

use clap::Args;
use hostler_common::id::HostName;
use hostler_common::rpc::hostler::site::v1::{CreateTokenRequest, RevokeTokenRequest};
use hostler_pki::CoordinatorAddress;

use super::administer;
use crate::command::Context;
use crate::connect::Coordinator;
use crate::failure::Failure;
use crate::output::token_view::{self, CreatedToken};
use crate::output::{self, Format};

/// How long a token may be used, in seconds.
const LIVES: std::ops::RangeInclusive<u64> = 60..=604_800;

/// Makes a token with which one host enrols once
#[derive(Debug, Args)]
#[command(
    long_about = "\
Makes a token with which one host enrols once, and shows it after the command for that host, which reads it from the \
terminal: so it comes into no history and no list of processes. The token is a secret until it is used: it is good for \
this host name only, until its time is over, and pins this site's CA. It is not kept and cannot be shown again.

With --quiet, or into a pipe or a file, the token alone is printed.

Needs the role admin.",
    after_long_help = "\
Examples:
  hostler tokens create --host hv7
  hostler tokens create --host hv7 --expires 2h --json | jq -r .token
  hostler tokens create --host hv7 | ssh root@hv7 hostler-agent enrol --token-file -"
)]
pub(crate) struct Create {
    /// The host that may enrol with it
    #[arg(long, value_name = "HOST")]
    host: HostName,
    /// How long it may be used, as 30m or 2h: a minute to 7 days
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = seconds)]
    expires: u32,
    /// Print the token alone
    #[arg(long, short)]
    quiet: bool,
}

fn seconds(text: &str) -> Result<u32, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30m or 2h"))?;
    match u32::try_from(duration.as_secs()) {
        Ok(seconds) if LIVES.contains(&u64::from(seconds)) => Ok(seconds),
        _ => {
            let word = |seconds| humantime::format_duration(Duration::from_secs(seconds));
            Err(format!(
                "must be from {} to {}",
                word(*LIVES.start()),
                word(*LIVES.end())
            ))
        }
    }
}

impl Create {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let request = CreateTokenRequest {
            host: self.host.to_string(),
            expires_seconds: self.expires,
        };
        let call = coordinator.answer(administer("CreateToken"), async {
            coordinator.site().create_token(request).await
        });
        let answer = call.await?;
        let at = match answer.addresses.first() {
            Some(address) => address.clone(),
            // The coordinator does not know; it is where this client found it.
            None => enrol_address(&context.settings.coordinator, answer.enrol_port),
        };
        let id = answer.kept.as_ref().map(|kept| kept.id.clone());
        let it = CreatedToken::of(answer, &at);
        let printed = match context.settings.output {
            Format::Json => output::print_document(&it),
            Format::Table if self.quiet || context.terminal.width.is_none() => output::print(it.token()),
            Format::Table => output::print(&token_view::created(&it)),
        };
        match (printed, id) {
            (Err(Failure::Print { source }), Some(id)) => Err(take_back(&coordinator, id, source).await),
            (printed, _) => printed,
        }
    }
}

/// What nobody has seen nobody can use, but whoever finds it in a file that was cut off.
async fn take_back(coordinator: &Coordinator, id: String, source: std::io::Error) -> Failure {
    let request = RevokeTokenRequest { id: id.clone() };
    let call = coordinator.answer(administer("RevokeToken"), async {
        coordinator.site().revoke_token(request).await
    });
    let revoked = call.await.is_ok();
    Failure::Unseen { id, revoked, source }
}

fn enrol_address(coordinator: &CoordinatorAddress, port: u32) -> String {
    let host = coordinator.host();
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_from_a_minute_to_a_week() {
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("7days"), Ok(604_800));
        for wrong in ["59s", "8days", "soon", "200years"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_enrol_where_the_client_found_the_coordinator() {
        for (address, at) in [
            ("c.example.org", "c.example.org:1313"),
            ("[::1]:1312", "[::1]:1313"),
        ] {
            assert_eq!(enrol_address(&address.parse().unwrap(), 1313), at);
        }
    }
}
