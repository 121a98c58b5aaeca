//! `hostler-pki rotate-ca`: a new root in place of the old one, in three steps with people's work in between. Each step
//! says what that work is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use hostler_common::units::UnixMillis;
use hostler_pki::ca::Root;
use hostler_pki::ca::rotation::{self, Did, Rotation, Stage};

use super::{Outcome, days, output};

pub(super) const STEPS: &str = "\
The steps, each of which may be repeated, also after it was cut short:
  1. hostler-pki rotate-ca begin --dir pki
     pki/ca.crt now holds the old root and a new one. Both are trusted, the old one signs.
     Give pki/ca.crt to every coordinator, host and client. Enrolled agents are told by
     their coordinator.
  2. hostler-pki rotate-ca switch --dir pki
     The new root signs. Give every coordinator, host and client a new certificate.
     Enrolled agents renew theirs by themselves: wait one life of their certificates.
     hostler status names the agents and clients that still have one of the old root.
     Enrolment tokens from before name the old root: once the coordinator has its new
     certificate, make new ones.
  3. hostler-pki rotate-ca finish --dir pki --drop ID
     The old root is trusted no more: the coordinator ends every connection by a certificate
     of it, and tells its agents. Give pki/ca.crt to everybody else once again.
Who misses step 1 is cut off when the coordinator shows a certificate of the new root;
who misses step 2 is cut off by step 3. Files that go out of use are kept as
ca.key.DATE.ID and ca.crt.DATE.ID.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Step 1: make a new root; both are trusted, the old one signs
    Begin {
        #[command(flatten)]
        ca: Ca,
        /// How long the new root is valid
        #[arg(long, value_name = "DAYS", default_value = "3650", value_parser = days)]
        days: Duration,
    },
    /// Step 2: the new root signs; both are trusted
    Switch {
        #[command(flatten)]
        ca: Ca,
    },
    /// Step 3: trust the old root no more
    Finish {
        #[command(flatten)]
        ca: Ca,
        /// The old root's id, as status shows it: nobody has a certificate from it any more
        #[arg(long, value_name = "ID")]
        drop: Option<String>,
    },
    /// Say how far it is, and what comes next
    Status {
        #[command(flatten)]
        ca: Ca,
    },
}

#[derive(Debug, Args)]
pub(super) struct Ca {
    /// Where the CA is
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(command: &Command) -> anyhow::Result<Outcome> {
    let (dir, done) = match command {
        Command::Begin { ca, days } => (&ca.dir, Some(("begin", rotation::begin(&ca.dir, *days)?))),
        Command::Switch { ca } => (&ca.dir, Some(("switch", rotation::switch(&ca.dir)?))),
        Command::Finish { ca, drop } => (&ca.dir, Some(("finish", finish(&ca.dir, drop.as_deref())?))),
        Command::Status { ca } => (&ca.dir, None),
    };
    match done {
        Some((step, Did::Now)) => output::line(&format!("{step}: done")),
        Some((step, Did::Before)) => output::line(&format!("{step}: was done before, nothing has changed")),
        None => {}
    }
    output::line(&tell(&rotation::status(dir)?));
    Ok(Outcome::Good)
}

/// Drops the old root, and says what can be seen from here of those who are cut off by it.
fn finish(dir: &Path, drop: Option<&str>) -> anyhow::Result<Did> {
    let leaves = rotation::status(dir)?.signed_by_old();
    if drop.is_none() && !leaves.is_empty() {
        output::error(&format!(
            "hostler-pki: still signed by the old root: {}",
            names(&leaves)
        ));
    }
    let did = rotation::finish(dir, drop)?;
    if did == Did::Now && !leaves.is_empty() {
        output::error(&format!(
            "hostler-pki: from now on nobody accepts these, which the old root signed: {}",
            names(&leaves)
        ));
    }
    Ok(did)
}

fn tell(now: &Rotation) -> String {
    let dir = now.dir.display();
    let stage = match now.stage {
        Stage::Steady => "no rotation is under way",
        Stage::Beginning => "begin was cut short",
        Stage::Begun => "begun: both roots are trusted, the old one signs",
        Stage::Switching => "switch was cut short: the new root signs, and its key is still next.key",
        Stage::Switched => "switched: both roots are trusted, the new one signs",
    };
    let mut lines = vec![format!(
        "the CA of {} in {dir}: {stage}",
        now.roots[0].trust_domain
    )];
    lines.extend(now.roots.iter().enumerate().map(|(at, root)| row(at, root)));
    if !now.kept.is_empty() {
        lines.push(format!(
            "  kept from before: {}; yours to destroy once nobody needs the old root",
            names(&now.kept)
        ));
    }
    let leaves = now.signed_by_old();
    if now.stage == Stage::Switched && !leaves.is_empty() {
        lines.push(format!("  still signed by the old root: {}", names(&leaves)));
    }
    let old = now.old().map_or_else(String::new, |old| old.id.clone());
    lines.push(match now.stage {
        Stage::Steady => format!(
            "next: nothing, but that everybody has this {dir}/ca.crt; to renew the CA: hostler-pki rotate-ca begin --dir {dir}"
        ),
        Stage::Beginning => format!("next: hostler-pki rotate-ca begin --dir {dir}"),
        Stage::Begun => format!(
            "next: give {dir}/ca.crt to every coordinator, host and client (enrolled agents are told by their coordinator);\n      \
             when all of them have it: hostler-pki rotate-ca switch --dir {dir}"
        ),
        Stage::Switching => format!("next: hostler-pki rotate-ca switch --dir {dir}"),
        Stage::Switched => format!(
            "next: give every coordinator, host and client a new certificate (hostler-pki issue ... --force; enrolled agents \
             renew by themselves);\n      when nobody has one of the old root, as hostler status tells: hostler-pki rotate-ca finish --dir {dir} --drop {old}"
        ),
    });
    lines.join("\n")
}

fn row(at: usize, root: &Root) -> String {
    const DAY: i64 = 86_400_000;
    let does = if at == 0 { "signs" } else { "trusted" };
    let left = root.not_after.0.saturating_sub(UnixMillis::now().0);
    let left = if left < 0 {
        "expired".to_owned()
    } else {
        format!("{} days left", left / DAY)
    };
    format!(
        "  {does:<8} {}  until {} ({left})  {}",
        root.id, root.not_after, root.fingerprint
    )
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
