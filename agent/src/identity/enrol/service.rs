//! The agent's service, once the host is enrolled. It never touches a service of another configuration, and nothing where systemd
//! does not run.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::Service;
use super::configuration::Change;
use crate::command::{CommandFault, Program};

/// The unit of the package, and the configuration that it reads.
const UNIT: &str = "hostler-agent.service";
const ITS_CONFIG: &str = "/etc/hostler/agent.toml";
/// There while systemd runs the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// systemd gives up before that.
const DEADLINE: Duration = Duration::from_secs(240);

/// Why the service does not run.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// systemd says no.
    #[error("see journalctl -u hostler-agent")]
    Command {
        /// Which command, and why.
        #[from]
        source: CommandFault,
    },
    /// It was started and does not run.
    #[error("{UNIT} was started and does not run; see journalctl -u hostler-agent")]
    Inactive,
    /// Nobody reads what is told.
    #[error("cannot tell what was done")]
    Tell {
        /// Why.
        #[from]
        source: io::Error,
    },
}

/// Starts the service, also with the machine, or says who has to.
pub(super) fn bring_up(
    wanted: Service,
    config: &Path,
    change: Change,
    out: &mut impl Write,
) -> Result<(), ServiceError> {
    let by_hand = match wanted {
        Service::Leave => Some("not touched, as asked"),
        Service::Start if config != Path::new(ITS_CONFIG) => {
            Some("not touched: it reads another configuration")
        }
        Service::Start if !Path::new(BOOTED).exists() => Some("not touched: systemd does not run here"),
        Service::Start => None,
    };
    if let Some(why) = by_hand {
        let config = config.display();
        return Ok(writeln!(
            out,
            "service        {why}; one that runs takes the certificate by itself, else start: hostler-agent --config {config}"
        )?);
    }
    let systemctl = Program::find("systemctl")?;
    let runs = || -> Result<bool, CommandFault> {
        let asked = systemctl.command(["is-active", "--quiet", UNIT]).run(DEADLINE)?;
        Ok(asked.status.success())
    };
    systemctl.command(["enable", "--quiet", UNIT]).succeed(DEADLINE)?;
    let said = match (runs()?, change) {
        (true, Change::None) => "runs, and takes the certificate by itself",
        (true, Change::Written) => {
            systemctl.command(["restart", UNIT]).succeed(DEADLINE)?;
            "was started again with the new configuration"
        }
        (false, _) => {
            systemctl.command(["start", UNIT]).succeed(DEADLINE)?;
            "was started, and starts with the machine"
        }
    };
    if !runs()? {
        return Err(ServiceError::Inactive);
    }
    Ok(writeln!(out, "service        {UNIT} {said}")?)
}
