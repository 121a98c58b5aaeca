//! `hostler-pki init`: a new CA. It never touches one that is there.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hostler_pki::TrustDomain;
use hostler_pki::ca::Authority;

use super::{Outcome, days, output};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where ca.crt and ca.key go; made when it is missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The name of the fleet, as example.org; every identity begins with it
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// How long the CA is valid
    #[arg(long, value_name = "DAYS", default_value = "3650", value_parser = days)]
    days: Duration,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let authority = Authority::init(&arguments.dir, arguments.trust_domain.clone(), arguments.days)?;
    let dir = arguments.dir.display();
    output::line(&format!(
        "made the CA of {} in {dir}, valid until {}\n  {dir}/ca.crt  give it to every host and client\n  {dir}/ca.key  keep it to yourself",
        authority.trust_domain(),
        authority.not_after(),
    ));
    Ok(Outcome::Good)
}
