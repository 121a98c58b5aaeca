//! The activation: what the site starts on top of networks and pools to put the host in service.

use std::sync::Arc;
use std::time::Duration;

use hostler_common::error::excerpt;

use super::super::StepFault;
use super::super::wait::until;
use super::Host;
use super::turn::Turn;
use crate::command::{Command, CommandFault, Program};
use crate::config::{AbsolutePath, ActivationConfig};
use crate::executor::step::{Before, Progress, Step, StepError};

/// How long the status may take to tell that what was started is active.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// Between two questions for it.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// What the site starts, one change of it at a time.
pub(super) struct Activation {
    what: What,
    turn: Turn,
}

/// What is started, with the programs that do it.
enum What {
    /// The site's own commands.
    Exec(Box<Commands>),
    /// A systemd unit.
    Systemd { systemctl: Program, unit: String },
    /// A compose file.
    Compose { docker: Program, file: AbsolutePath },
}

/// What a site runs by itself.
struct Commands {
    start: Command,
    stop: Command,
    status: Command,
}

/// Whether it is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ActivationState {
    Active,
    Inactive,
    /// Neither, and why.
    Partial {
        detail: String,
    },
}

impl Activation {
    pub(super) fn new(config: &ActivationConfig, turn: Turn) -> Result<Self, CommandFault> {
        let what = What::new(config)?;
        Ok(Self { what, turn })
    }

    /// Whether it is up now.
    pub(super) fn state(&self, deadline: Duration) -> Result<ActivationState, StepFault> {
        self.what.state(deadline)
    }
}

impl What {
    fn new(config: &ActivationConfig) -> Result<Self, CommandFault> {
        Ok(match config {
            ActivationConfig::Exec { start, stop, status } => Self::Exec(Box::new(Commands {
                start: Command::configured(start)?,
                stop: Command::configured(stop)?,
                status: Command::configured(status)?,
            })),
            ActivationConfig::Systemd { unit } => Self::Systemd {
                systemctl: Program::find("systemctl")?,
                unit: unit.clone(),
            },
            ActivationConfig::Compose { file } => Self::Compose {
                docker: Program::find("docker")?,
                file: file.clone(),
            },
        })
    }

    fn start(&self) -> Command {
        match self {
            Self::Exec(commands) => commands.start.clone(),
            Self::Systemd { systemctl, unit } => systemctl.command(["start", unit]),
            Self::Compose { docker, file } => compose(docker, file, &["up", "--detach"]),
        }
    }

    fn stop(&self) -> Command {
        match self {
            Self::Exec(commands) => commands.stop.clone(),
            Self::Systemd { systemctl, unit } => systemctl.command(["stop", unit]),
            // Not `down`, which would remove the containers with what is in them.
            Self::Compose { docker, file } => compose(docker, file, &["stop"]),
        }
    }

    fn state(&self, deadline: Duration) -> Result<ActivationState, StepFault> {
        let ask = |command: &Command| {
            let fault = StepFault::command("ask whether the activation is active");
            command
                .succeed(deadline)
                .map(|output| output.stdout)
                .map_err(fault)
        };
        match self {
            Self::Exec(commands) => {
                let fault = StepFault::command("ask whether the activation is active");
                let status = &commands.status;
                let output = status.run(deadline).map_err(fault)?;
                Ok(match output.status.code() {
                    Some(0) => ActivationState::Active,
                    Some(_) => ActivationState::Inactive,
                    // Killed by a signal, so it did not answer.
                    None => ActivationState::Partial {
                        detail: format!("{status} ended with {}", output.status),
                    },
                })
            }
            Self::Systemd { systemctl, unit } => {
                let show = ["show", "--property=ActiveState", "--value", unit];
                Ok(unit_state(unit, ask(&systemctl.command(show))?.trim()))
            }
            Self::Compose { docker, file } => {
                let services = ask(&compose(docker, file, &["config", "--services"]))?;
                let running = ask(&compose(
                    docker,
                    file,
                    &["ps", "--services", "--status", "running"],
                ))?;
                Ok(compose_state(&services, &running))
            }
        }
    }
}

fn compose(docker: &Program, file: &AbsolutePath, verb: &[&str]) -> Command {
    let file = file.to_string();
    docker.command(["compose", "--file", &file].iter().chain(verb).copied())
}

/// systemd(1), "Units": reloading and refreshing are active too.
pub(super) fn unit_state(unit: &str, state: &str) -> ActivationState {
    match state {
        "active" | "reloading" | "refreshing" => ActivationState::Active,
        "inactive" | "failed" => ActivationState::Inactive,
        other => ActivationState::Partial {
            detail: format!("the unit {unit} is {}", excerpt(other)),
        },
    }
}

pub(super) fn compose_state(services: &str, running: &str) -> ActivationState {
    let running: Vec<_> = running.lines().collect();
    let missing: Vec<_> = services
        .lines()
        .filter(|service| !running.contains(service))
        .collect();
    if missing.is_empty() && !running.is_empty() {
        ActivationState::Active
    } else if running.is_empty() {
        ActivationState::Inactive
    } else {
        ActivationState::Partial {
            detail: format!(
                "of the compose services these do not run: {}",
                excerpt(&missing.join(", "))
            ),
        }
    }
}

impl Activation {
    fn before(&self, host: &Host) -> Result<Before, StepError> {
        Ok(match self.state(host.site.call_timeout)? {
            ActivationState::Active => Before::Active,
            // What was partly up is brought up wholly; an undo can only stop it.
            ActivationState::Inactive | ActivationState::Partial { .. } => Before::Inactive,
        })
    }

    fn ensure_started(&self, host: &Host) -> Result<(), StepError> {
        let at_most = host.config.activation_timeout;
        self.turn.wait(at_most)?;
        if self.state(host.site.call_timeout)? == ActivationState::Active {
            return Ok(());
        }
        let start = self.turn.taken_by(self.what.start());
        let started = match &self.what {
            // What the site's command leaves running outlives this process.
            What::Exec(_) => start.leave_behind(at_most, &host.activation_log),
            What::Systemd { .. } | What::Compose { .. } => start.succeed(at_most).map(drop),
        };
        started.map_err(StepFault::command("start the activation"))?;
        let is_active = || -> Result<Option<()>, StepError> {
            Ok((self.state(host.site.call_timeout)? == ActivationState::Active).then_some(()))
        };
        // The list will believe the status, and not that start ended well.
        match until(SETTLES_WITHIN, ASK_EVERY, is_active)? {
            Some(()) => Ok(()),
            None => Err(StepFault::NotReady {
                what: "the activation was started, but its status did not become active".to_owned(),
                waited: SETTLES_WITHIN,
                last_line: String::new(),
            }
            .into()),
        }
    }

    fn ensure_stopped(&self, host: &Host) -> Result<(), StepError> {
        let at_most = host.config.activation_timeout;
        self.turn.wait(at_most)?;
        if self.state(host.site.call_timeout)? == ActivationState::Inactive {
            return Ok(());
        }
        let stop = self.turn.taken_by(self.what.stop());
        let stopped = stop.succeed(at_most);
        stopped.map_err(StepFault::command("stop the activation"))?;
        Ok(())
    }
}

fn deadline(host: &Host) -> Duration {
    // Its own timeouts come first, so that a program that hangs is killed and not only given up on. One is for what an
    // earlier agent began.
    host.config.activation_timeout * 2 + SETTLES_WITHIN + host.site.calls(4)
}

/// Starts the activation.
pub(super) struct Activate {
    host: Arc<Host>,
    activation: Arc<Activation>,
}

impl Activate {
    pub(super) fn new(host: Arc<Host>, activation: Arc<Activation>) -> Self {
        Self { host, activation }
    }
}

impl Step for Activate {
    fn name(&self) -> String {
        format!("activate {}", self.host.config.id)
    }

    fn deadline(&self) -> Duration {
        deadline(&self.host)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.activation.before(&self.host)
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        self.activation.ensure_started(&self.host)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        match before {
            Before::Inactive | Before::Absent => self.activation.ensure_stopped(&self.host),
            Before::Active | Before::Nothing => Ok(()),
        }
    }
}

/// Stops the activation.
pub(super) struct Deactivate {
    host: Arc<Host>,
    activation: Arc<Activation>,
}

impl Deactivate {
    pub(super) fn new(host: Arc<Host>, activation: Arc<Activation>) -> Self {
        Self { host, activation }
    }
}

impl Step for Deactivate {
    fn name(&self) -> String {
        format!("deactivate {}", self.host.config.id)
    }

    fn deadline(&self) -> Duration {
        deadline(&self.host)
    }

    fn look(&self) -> Result<Before, StepError> {
        self.activation.before(&self.host)
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        self.activation.ensure_stopped(&self.host)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        match before {
            Before::Active => self.activation.ensure_started(&self.host),
            Before::Inactive | Before::Absent | Before::Nothing => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_active_inactive_or_on_its_way() {
        assert_eq!(unit_state("u", "active"), ActivationState::Active);
        assert_eq!(unit_state("u", "failed"), ActivationState::Inactive);
        let detail = "the unit u is activating".to_owned();
        assert_eq!(unit_state("u", "activating"), ActivationState::Partial { detail });
    }

    #[test]
    fn a_compose_file_is_active_only_with_all_its_services() {
        assert_eq!(compose_state("a\nb\n", "b\na\n"), ActivationState::Active);
        assert_eq!(compose_state("a\nb\n", ""), ActivationState::Inactive);
        let state = compose_state("a\nb\n", "b\n");
        assert!(
            matches!(&state, ActivationState::Partial { detail } if detail.ends_with(": a")),
            "{state:?}"
        );
    }
}
