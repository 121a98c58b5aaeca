//! The arguments of `hostler-agent enrol`, and what a person sees of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hostler_agent::identity::enrol::{Enrolment, Service, TokenFrom, enrolment_address, read_token};
use hostler_common::shutdown;
use hostler_pki::{CoordinatorAddress, EnrolToken};

/// A token is worth a host until it is used.
const TYPED: &str = "hostler-agent: --token shows the token to everybody on this machine and to the shell's history; --token-file - does not";

/// Makes this host one of the fleet, with a token that an admin made for it.
///
/// `hostler tokens create --host NAME` prints the token. The key is made on this host and never leaves it; the coordinator
/// must prove that it holds the CA which the token names, and then signs a certificate. Certificate, key and CA go where the
/// configuration says, the configuration gets the coordinator's address if it has none yet, and the service starts.
///
/// Running the same command again is safe: after a lost answer or a crash it goes on where it was, and on a host that is enrolled
/// it changes nothing. A new token makes a new certificate.
///
/// Example: hostler-agent enrol --token-file - --coordinator coordinator.example.org
#[derive(Args)]
pub(crate) struct EnrolArguments {
    #[command(flatten)]
    from: Source,
    /// Where the coordinator enrols hosts; port 1313 when none is named. Without it: on that port of the coordinator that the
    /// configuration names.
    #[arg(long, value_name = "HOST:PORT", value_parser = enrolment_address)]
    coordinator: Option<CoordinatorAddress>,
    /// For how long a coordinator that is away or busy is tried again. A refusal ends it at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Leave the service as it is.
    #[arg(long)]
    no_start: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The token. Other users of this machine may see it while this runs; --token-file keeps it to yourself.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// A file that holds the token; - reads it from standard input, up to the end of the line.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

impl EnrolArguments {
    pub(crate) fn enrol(&self, config: &Path) -> anyhow::Result<()> {
        let from = match (&self.from.token, &self.from.token_file) {
            (Some(word), _) => {
                // Whoever pastes it there the next time may read this first.
                let _ = writeln!(std::io::stderr(), "{TYPED}");
                TokenFrom::Word(word.clone().into())
            }
            (None, Some(path)) => TokenFrom::File(path.clone()),
            (None, None) => TokenFrom::File("-".into()),
        };
        let token = read_token(&from)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(self.with(token, config))
    }

    async fn with(&self, token: EnrolToken, config: &Path) -> anyhow::Result<()> {
        let enrolment = Enrolment {
            token,
            coordinator: self.coordinator.clone(),
            config: std::path::absolute(config).context("this directory has no name")?,
            service: match self.no_start {
                true => Service::Leave,
                false => Service::Start,
            },
            wait: self.wait,
            stop: shutdown::on_signals().context("cannot listen for signals")?,
        };
        Ok(enrolment
            .run(&mut std::io::stdout(), &mut std::io::stderr())
            .await?)
    }
}
