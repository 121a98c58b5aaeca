//! Running a program while it is listened to: every line as it comes, and a way to stop it.
//!
//! It never keeps more than a few lines. The invariant: whoever listens is called on the thread that called, which
//! is also the program's parent and stays until the program has ended.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::kept::{KEPT, Keep, Kept, LAST_WORDS};
use super::{Command, CommandFault, Output};

/// The longest line that is handed on whole; what is beyond is dropped. restic lists all backups in one line, with 600
/// bytes or so for each: this holds more than any rule of the configuration keeps.
const LINE_BOUND: usize = 64 * 1024 * 1024;

/// Lines that wait for whoever listens: one, since each may be as long as [`LINE_BOUND`]. More stay in the pipe, and
/// the program waits.
const LINES_BOUND: usize = 1;

/// How often it is asked whether to go on.
const ASKED_EVERY: Duration = Duration::from_millis(200);

/// How long a program that was told to stop may take, before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a program that runs is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepGoing {
    /// It is.
    Yes,
    /// It gets SIGTERM, and SIGKILL when it still runs after ten seconds.
    Stop,
}

enum Event {
    Line(String),
    /// Nobody writes to the pipe any more.
    Silent,
    Ended,
}

impl Command {
    /// Runs it to its end, whatever that is. Every line of its standard output goes to `on_line`, without its
    /// newline and cut at 64 MiB. `keep_going` is asked about every 200 ms; after its Stop it is not asked again,
    /// and the output has the status of a program that was stopped.
    ///
    /// # Errors
    /// When it does not start, or does not end within `deadline`.
    pub fn follow(
        &self,
        on_line: &mut dyn FnMut(&str),
        keep_going: &mut dyn FnMut() -> KeepGoing,
        deadline: Duration,
    ) -> Result<Output, CommandFault> {
        let begun = Instant::now();
        let mut child = self.start(Stdio::piped(), Stdio::piped())?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let (tell, events) = mpsc::sync_channel(LINES_BOUND);
        let stderr = match listen(&mut child, &tell) {
            Ok(stderr) => stderr,
            Err(source) => return Err(self.abandon(child, source)),
        };
        let ending = move || {
            let _ = tell.send(Event::Ended);
        };
        if let Err(source) = Self::when_ended(pid, ending) {
            return Err(self.abandon(child, source));
        }

        let mut said = String::new();
        let mut full = false;
        let mut hear = |line: &str| {
            full |= said.len() + line.len() >= KEPT;
            if !full {
                said.push_str(line);
                said.push('\n');
            }
            on_line(line);
        };
        let mut asked = begun;
        let mut stopped = None;
        let mut silent = false;
        let in_time = loop {
            match events.recv_timeout(ASKED_EVERY.saturating_sub(asked.elapsed())) {
                Ok(Event::Line(line)) => hear(&line),
                Ok(Event::Silent) => silent = true,
                Ok(Event::Ended) => break true,
                // The watcher tells the end before it hangs up.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if begun.elapsed() >= deadline {
                break false;
            }
            if asked.elapsed() < ASKED_EVERY {
                continue;
            }
            asked = Instant::now();
            // Errors of killpg mean that it ended just now.
            match stopped {
                None if keep_going() == KeepGoing::Stop => {
                    stopped = Some(Instant::now());
                    let _ = killpg(pid, Signal::SIGTERM);
                }
                Some(since) if since.elapsed() >= PATIENCE => {
                    let _ = killpg(pid, Signal::SIGKILL);
                }
                _ => {}
            }
        };
        if !in_time {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let status = child.wait().map_err(|source| CommandFault::Start {
            command: self.to_string(),
            source,
        })?;
        if !in_time {
            return Err(CommandFault::TimedOut {
                command: self.to_string(),
                deadline,
            });
        }
        // Its last lines may still be on their way; a daemon that it left behind may go on for ever.
        let ended = Instant::now();
        while !silent && ended.elapsed() < PATIENCE {
            match events.recv_timeout(LAST_WORDS) {
                Ok(Event::Line(line)) => hear(&line),
                Ok(Event::Ended) => {}
                Ok(Event::Silent) | Err(_) => silent = true,
            }
        }
        Ok(Output {
            status,
            stdout: said,
            stderr: stderr.text(),
        })
    }
}

fn listen(child: &mut Child, tell: &SyncSender<Event>) -> std::io::Result<Kept> {
    let pipe = child.stdout.take();
    let lines = tell.clone();
    let read = move || {
        if let Some(pipe) = pipe {
            read_lines(pipe, |line| lines.send(Event::Line(line)).is_ok());
        }
        let _ = lines.send(Event::Silent);
    };
    std::thread::Builder::new()
        .name("program-lines".into())
        .spawn(read)?;
    Kept::collect(child.stderr.take(), Keep::End)
}

/// Hands on every line of `pipe` until it ends or nobody listens.
fn read_lines(pipe: impl Read, mut hand_on: impl FnMut(String) -> bool) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    let mut dropping = false;
    loop {
        let room = u64::try_from(LINE_BOUND).unwrap_or(u64::MAX);
        line.clear();
        match (&mut pipe).take(room).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let whole = line.last() == Some(&b'\n');
        if whole {
            line.pop();
        }
        let rest_of_a_long_one = std::mem::replace(&mut dropping, !whole);
        if !rest_of_a_long_one && !hand_on(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::super::Program;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn sh(script: &str) -> Command {
        Program::find("sh").unwrap().command(["-c", script])
    }

    fn yes() -> KeepGoing {
        KeepGoing::Yes
    }

    #[test]
    fn every_line_is_heard_while_the_program_runs_and_its_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("gate");
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!(
            "echo one; read x < {}; echo two; echo why >&2; exit 3",
            gate.display()
        );
        let mut heard = Vec::new();
        let mut hear = |line: &str| {
            heard.push(line.to_owned());
            if line == "one" {
                // The program goes on only after its first line was heard.
                std::fs::write(&gate, "go\n").unwrap();
            }
        };
        let output = sh(&script).follow(&mut hear, &mut yes, LONG).unwrap();
        assert_eq!(heard, ["one", "two"]);
        assert_eq!(output.stdout, "one\ntwo\n");
        assert_eq!((output.status.code(), output.stderr.as_str()), (Some(3), "why\n"));
    }

    #[test]
    fn much_output_is_heard_to_its_last_line_and_not_kept() {
        let mut lines = 0_u32;
        let mut last = String::new();
        let mut hear = |line: &str| {
            lines += 1;
            line.clone_into(&mut last);
        };
        let output = sh("seq 1 200000; printf end")
            .follow(&mut hear, &mut yes, LONG)
            .unwrap();
        assert_eq!((lines, last.as_str()), (200_001, "end"));
        assert!(output.stdout.len() <= KEPT && output.stdout.starts_with("1\n2\n"));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let mut lengths = Vec::new();
        let mut hear = |line: &str| lengths.push(line.len());
        let long = LINE_BOUND * 5 / 2;
        sh(&format!("head -c {long} /dev/zero | tr '\\0' a; echo; echo next"))
            .follow(&mut hear, &mut yes, LONG)
            .unwrap();
        assert_eq!(lengths, [LINE_BOUND, 4]);
    }

    #[test]
    fn the_list_of_many_backups_is_one_line_and_is_heard_whole() {
        let mut lengths = Vec::new();
        let mut hear = |line: &str| lengths.push(line.len());
        let list = 10_000 * 700;
        sh(&format!("head -c {list} /dev/zero | tr '\\0' a; echo"))
            .follow(&mut hear, &mut yes, LONG)
            .unwrap();
        assert_eq!(lengths, [list]);
    }

    #[test]
    fn stop_ends_the_program_and_its_children_by_sigterm() {
        let mut asked = 0;
        let mut stop = || {
            asked += 1;
            match asked {
                1 => KeepGoing::Yes,
                _ => KeepGoing::Stop,
            }
        };
        let begun = Instant::now();
        let output = sh("sleep 60 & wait")
            .follow(&mut |_| (), &mut stop, LONG)
            .unwrap();
        assert_eq!(output.status.signal(), Some(Signal::SIGTERM as i32));
        assert_eq!(asked, 2);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_program_that_will_not_stop_is_killed() {
        let mut stop = || KeepGoing::Stop;
        let output = sh("trap '' TERM; while :; do :; done").follow(&mut |_| (), &mut stop, LONG * 2);
        assert_eq!(output.unwrap().status.signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn the_deadline_holds_for_a_program_that_talks_and_for_one_that_is_silent() {
        for script in ["while :; do echo x; done", "sleep 60", "exec >&-; sleep 60"] {
            let fault = sh(script)
                .follow(&mut |_| (), &mut yes, Duration::from_millis(500))
                .unwrap_err();
            assert!(
                matches!(fault, CommandFault::TimedOut { .. }),
                "{script}: {fault}"
            );
        }
    }
}
