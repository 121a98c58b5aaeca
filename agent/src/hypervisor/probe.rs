//! What tells that a hypervisor is ready: a port, a command, or a line on its serial console.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{StepFault, wait};
use crate::command::{Command, CommandFault};
use crate::config::{AbsolutePath, ReadinessConfig};

/// Between two questions. A guest is seen ready at most this late.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest that one question may take, as docs/configuration.md says; a probe that hangs is asked again.
const ONE_TRY: Duration = Duration::from_secs(5);

/// How to find out.
#[derive(Debug)]
pub(super) enum Probe {
    /// Something accepts connections.
    Tcp(SocketAddr),
    /// A command ends with 0.
    Exec(Command),
    /// A text is in the serial log.
    Serial { log: AbsolutePath, text: String },
}

impl Probe {
    /// As configured. `serial_log` is there when the configuration asks for a serial probe.
    pub(super) fn new(
        readiness: Option<&ReadinessConfig>,
        serial_log: Option<&AbsolutePath>,
    ) -> Result<Option<Self>, CommandFault> {
        Ok(match (readiness, serial_log) {
            (None, _) | (Some(ReadinessConfig::Serial { .. }), None) => None,
            (Some(ReadinessConfig::Tcp { address }), _) => Some(Self::Tcp(*address)),
            (Some(ReadinessConfig::Exec { command }), _) => Some(Self::Exec(Command::configured(command)?)),
            (Some(ReadinessConfig::Serial { text }), Some(log)) => Some(Self::Serial {
                log: log.clone(),
                text: text.clone(),
            }),
        })
    }

    /// Waits until it is ready. `check` is asked between two questions and ends the wait with its error.
    pub(super) fn wait<E: From<StepFault>>(
        &self,
        at_most: Duration,
        mut check: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let until = Instant::now() + at_most;
        let mut serial = SerialLog::default();
        let mut said = String::new();
        let ready = wait::until(at_most, PAUSE, || {
            let left = until.saturating_duration_since(Instant::now());
            let one_try = left.clamp(Duration::from_millis(1), ONE_TRY);
            let ready = match self {
                Self::Tcp(address) => TcpStream::connect_timeout(address, one_try).is_ok(),
                Self::Exec(command) => match command.succeed(one_try) {
                    Ok(_) => true,
                    Err(fault) => {
                        said = fault.to_string();
                        false
                    }
                },
                Self::Serial { log, text } => {
                    let ready = serial.holds(log, text);
                    said.clone_from(&serial.last_line());
                    ready
                }
            };
            if ready {
                return Ok(Some(()));
            }
            check()?;
            Ok::<_, E>(None)
        })?;
        ready.ok_or_else(|| {
            E::from(StepFault::NotReady {
                what: self.unmet(),
                waited: at_most,
                last_line: said,
            })
        })
    }

    fn unmet(&self) -> String {
        match self {
            Self::Tcp(address) => format!("{address} did not accept connections"),
            Self::Exec(command) => format!("{command} did not end with 0"),
            Self::Serial { log, text } => format!("{log} did not hold {text:?}"),
        }
    }
}

/// The last line of a serial log, for a person.
pub(super) fn last_line_of(log: &AbsolutePath) -> String {
    let length = std::fs::metadata(log).map_or(0, |log| log.len());
    let mut serial = SerialLog {
        offset: length.saturating_sub(TAIL as u64),
        ..SerialLog::default()
    };
    serial.holds(log, "\0");
    serial.last_line()
}

/// Reads a log that grows, each byte once.
#[derive(Default)]
struct SerialLog {
    offset: u64,
    /// The end of what was read: enough for a text that is split between two reads, and for a last line.
    tail: Vec<u8>,
}

/// What is kept of the end.
const TAIL: usize = 4096;

/// What one question reads at most. A guest that writes more keeps the next questions busy, and no memory.
const ONE_READ: u64 = 1 << 20;

impl SerialLog {
    /// Whether what was written since the last question holds `text`, also when it began before it. A log that
    /// cannot be read yet holds nothing.
    fn holds(&mut self, log: &AbsolutePath, text: &str) -> bool {
        let mut grown = Vec::new();
        let read = File::open(log).and_then(|mut file| {
            if file.metadata()?.len() < self.offset {
                // Truncated by a new start of the guest.
                *self = Self::default();
            }
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(ONE_READ).read_to_end(&mut grown)
        });
        if read.is_err() {
            return false;
        }
        self.offset += grown.len() as u64;
        self.tail.append(&mut grown);
        let text = text.as_bytes();
        // A text is never empty; a window must not be.
        let holds = self.tail.windows(text.len().max(1)).any(|window| window == text);
        let surplus = self.tail.len().saturating_sub(TAIL.max(text.len()));
        self.tail.drain(..surplus);
        holds
    }

    fn last_line(&self) -> String {
        let tail = String::from_utf8_lossy(&self.tail);
        let line = tail.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;
    use crate::command::Program;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    fn unchecked() -> Result<(), StepFault> {
        Ok(())
    }

    #[test]
    fn a_port_is_ready_when_it_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Probe::Tcp(address).wait(LONG, unchecked).unwrap();
        drop(listener);
        let fault = Probe::Tcp(address).wait(SOON, unchecked).unwrap_err();
        assert!(
            fault
                .to_string()
                .contains("did not accept connections within 50ms"),
            "{fault}"
        );
    }

    #[test]
    fn a_command_is_ready_when_it_ends_with_0() {
        let sh = |script: &str| Probe::Exec(Program::find("sh").unwrap().command(["-c", script]));
        sh("exit 0").wait(LONG, unchecked).unwrap();
        let fault = sh("echo not yet >&2; exit 1").wait(SOON, unchecked).unwrap_err();
        assert!(fault.to_string().contains("not yet"), "{fault}");
    }

    #[test]
    fn a_text_is_found_though_it_arrives_in_two_parts_and_after_a_truncation() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log: AbsolutePath = file.path().to_owned().try_into().unwrap();
        let mut serial = SerialLog::default();
        let mut write = file.reopen().unwrap();
        write.write_all(&[b'.'; 3 * TAIL]).unwrap();
        write.write_all(b"\nguest re").unwrap();
        assert!(!serial.holds(&log, "guest ready"));
        write.write_all(b"ady\n\n").unwrap();
        assert!(serial.holds(&log, "guest ready"));
        assert_eq!(serial.last_line(), "guest ready");
        std::fs::write(&log, "booting\n").unwrap();
        assert!(!serial.holds(&log, "guest ready"));
        assert_eq!(serial.last_line(), "booting");
    }

    #[test]
    fn a_flood_is_read_in_bounded_parts_and_its_last_line_is_found_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log: AbsolutePath = file.path().to_owned().try_into().unwrap();
        let mut flood = vec![b'.'; 3 << 20];
        flood.extend_from_slice("\nla máquina está lista\n".as_bytes());
        std::fs::write(&log, flood).unwrap();
        let mut serial = SerialLog::default();
        let questions = (1..).find(|_| serial.holds(&log, "está lista"));
        assert_eq!(questions, Some(4));
        assert_eq!(serial.last_line(), "la máquina está lista");
        assert_eq!(last_line_of(&log), "la máquina está lista");
    }

    #[test]
    fn a_failed_check_ends_the_wait_at_once() {
        let missing: AbsolutePath = std::path::PathBuf::from("/nonexistent").try_into().unwrap();
        let probe = Probe::Serial {
            log: missing,
            text: "x".into(),
        };
        let fault = probe.wait(LONG, || {
            Err(StepFault::StoppedEarly {
                name: "d".parse().unwrap(),
                last_line: "panic".into(),
            })
        });
        assert!(matches!(fault, Err(StepFault::StoppedEarly { .. })), "{fault:?}");
    }
}
