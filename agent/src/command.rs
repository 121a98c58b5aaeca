//! The only place that starts external programs: by absolute path, without a shell, with a deadline.
//!
//! A program gets a clean environment, nothing to read, and a process group of its own, all of which is killed
//! at the deadline. A daemon that it leaves behind after a good end is left alone. One that is meant to stay
//! writes to a file: a pipe breaks when the agent restarts, and whoever writes to it then dies. What is in a
//! program's environment may be secret: no text here ever holds it.

mod fault;
mod follow;
mod kept;

use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{AccessFlags, Pid, access};

pub use self::fault::CommandFault;
pub use self::follow::KeepGoing;
use self::kept::{Keep, Kept, end_of};
use crate::config::Argv;

/// Where programs are looked for, and what they get as `PATH`. The agent's own `PATH` is not trusted.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(PathBuf);

/// What a program that ended had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The first 64 KiB of its standard output.
    pub stdout: String,
    /// The last 64 KiB of its standard error.
    pub stderr: String,
}

impl Program {
    /// The program `name` from the usual folders.
    ///
    /// # Errors
    /// When none of them holds it.
    pub fn find(name: &str) -> Result<Self, CommandFault> {
        PATH.split(':')
            .map(|folder| Path::new(folder).join(name))
            .find_map(|path| Self::at(&path).ok())
            .ok_or_else(|| CommandFault::NotFound {
                name: name.to_owned(),
            })
    }

    /// The program at `path`, which is absolute.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn at(path: &Path) -> Result<Self, CommandFault> {
        let fault = |source| CommandFault::NotExecutable {
            path: path.to_owned(),
            source,
        };
        let kind = std::fs::metadata(path).map_err(fault)?;
        if !path.is_absolute() || !kind.is_file() {
            return Err(fault(io::ErrorKind::InvalidInput.into()));
        }
        access(path, AccessFlags::X_OK).map_err(|errno| fault(errno.into()))?;
        Ok(Self(path.to_owned()))
    }

    /// The command of this program with `arguments`.
    pub fn command<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        Command {
            program: self.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            folder: PathBuf::from("/"),
            environment: Vec::new(),
            through: None,
        }
    }
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    program: Program,
    arguments: Vec<String>,
    folder: PathBuf,
    environment: Vec<(String, Hidden)>,
    /// A program that becomes or starts this one, with its own arguments.
    through: Option<(Program, Vec<String>)>,
}

/// A value that nothing shows.
#[derive(Clone, PartialEq, Eq)]
struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.0.display())?;
        self.arguments.iter().try_for_each(|argument| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@".contains(c);
            if !argument.is_empty() && argument.chars().all(plain) {
                write!(f, " {argument}")
            } else {
                write!(f, " {argument:?}")
            }
        })
    }
}

impl Command {
    /// What the configuration names.
    ///
    /// # Errors
    /// When its program cannot be executed.
    pub fn configured(argv: &Argv) -> Result<Self, CommandFault> {
        Ok(Program::at(&argv.program)?.command(argv.arguments.clone()))
    }

    /// Runs it in `folder` and not in `/`.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Adds to its environment. Neither errors nor logs ever show the value.
    #[must_use]
    pub fn with_environment(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((key.into(), Hidden(value.into())));
        self
    }

    /// The kernel kills it when this process dies: for what must not run beside its successor. Its children are
    /// not covered. `setpriv` is util-linux's, found when the agent starts.
    ///
    /// The kernel means the thread that started it, and that one waits here until the program has ended.
    #[must_use]
    pub fn dies_with_us(mut self, setpriv: &Program) -> Self {
        let arguments = ["--pdeathsig", "KILL", "--"].map(str::to_owned);
        self.through = Some((setpriv.clone(), arguments.into()));
        self
    }

    /// Holds the lock on the file `lock` while it runs, whether or not this process lives: for what must not run
    /// twice at once. It waits for the lock. Daemons that it leaves behind do not hold it. `flock` is util-linux's.
    #[must_use]
    pub fn holding(mut self, lock: &Path, flock: &Program) -> Self {
        let arguments = ["--close".to_owned(), lock.display().to_string()];
        self.through = Some((flock.clone(), arguments.into()));
        self
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// When it does not start, or does not end within `deadline`.
    pub fn run(&self, deadline: Duration) -> Result<Output, CommandFault> {
        let mut child = self.start(Stdio::piped(), Stdio::piped())?;
        let kept = Kept::collect(child.stdout.take(), Keep::Beginning)
            .and_then(|stdout| Ok((stdout, Kept::collect(child.stderr.take(), Keep::End)?)));
        let (stdout, stderr) = match kept {
            Ok(kept) => kept,
            Err(source) => return Err(self.abandon(child, source)),
        };
        let status = self.wait(child, deadline)?;
        Ok(Output {
            status,
            stdout: stdout.text(),
            stderr: stderr.text(),
        })
    }

    /// Runs it and demands that it ends with 0.
    ///
    /// # Errors
    /// When it does not.
    pub fn succeed(&self, deadline: Duration) -> Result<Output, CommandFault> {
        let output = self.run(deadline)?;
        match output.status.success() {
            true => Ok(output),
            false => Err(self.failed(output.status, &output.stderr)),
        }
    }

    /// The same for a program that leaves a daemon behind: both write to `log`, which is emptied before.
    ///
    /// # Errors
    /// When it does not end with 0, or there is no such file.
    pub fn leave_behind(&self, deadline: Duration, log: &Path) -> Result<(), CommandFault> {
        let fault = |source| CommandFault::Log {
            command: self.to_string(),
            path: log.to_owned(),
            source,
        };
        if let Some(folder) = log.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(fault)?;
        }
        // A daemon of an earlier start may still write to it; appending leaves no hole then.
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600);
        let mut file = options.open(log).map_err(fault)?;
        file.set_len(0).map_err(fault)?;
        let [stdout, stderr] = [file.try_clone(), file.try_clone()];
        let child = self.start(stdout.map_err(fault)?.into(), stderr.map_err(fault)?.into())?;
        let status = self.wait(child, deadline)?;
        match status.success() {
            true => Ok(()),
            false => Err(self.failed(status, &end_of(&mut file).map_err(fault)?)),
        }
    }

    fn failed(&self, status: ExitStatus, said: &str) -> CommandFault {
        let last_line = said.lines().rev().find(|line| !line.trim().is_empty());
        CommandFault::Failed {
            command: self.to_string(),
            status,
            last_line: last_line.unwrap_or_default().trim().to_owned(),
        }
    }

    fn start(&self, stdout: Stdio, stderr: Stdio) -> Result<Child, CommandFault> {
        #[allow(
            clippy::disallowed_methods,
            reason = "this is the one place that starts programs"
        )]
        let mut command = std::process::Command::new(match &self.through {
            Some((through, _)) => &through.0,
            None => &self.program.0,
        });
        if let Some((_, arguments)) = &self.through {
            command.args(arguments).arg(&self.program.0);
        }
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C");
        if let Some(home) = std::env::var_os("HOME") {
            command.env("HOME", home);
        }
        for (key, Hidden(value)) in &self.environment {
            command.env(key, value);
        }
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        command.spawn().map_err(|source| CommandFault::Start {
            command: self.to_string(),
            source,
        })
    }

    /// Kills what was started and cannot be followed: the kernel gave no thread for it.
    fn abandon(&self, mut child: Child, source: io::Error) -> CommandFault {
        // Errors mean that it ended by itself.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        let _ = child.wait();
        CommandFault::Start {
            command: self.to_string(),
            source,
        }
    }

    /// Calls `tell` when the child `pid` has ended. It is left unreaped, so that its group's number cannot have
    /// been given to another process when it is killed after a deadline.
    fn when_ended(pid: Pid, tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let wait = move || {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(nix::Error::EINTR) {}
            tell();
        };
        std::thread::Builder::new()
            .name("program-end".into())
            .spawn(wait)?;
        Ok(())
    }

    fn wait(&self, mut child: Child, deadline: Duration) -> Result<ExitStatus, CommandFault> {
        let fault = |source| CommandFault::Start {
            command: self.to_string(),
            source,
        };
        let pid = Pid::from_raw(child.id().cast_signed());
        let (ended, end) = mpsc::sync_channel(1);
        let ending = move || {
            let _ = ended.send(());
        };
        if let Err(source) = Self::when_ended(pid, ending) {
            return Err(self.abandon(child, source));
        }
        let in_time = end.recv_timeout(deadline).is_ok();
        if !in_time {
            // An error means that it ended just now.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let status = child.wait().map_err(fault)?;
        if in_time {
            Ok(status)
        } else {
            Err(CommandFault::TimedOut {
                command: self.to_string(),
                deadline,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::Instant;

    use hostler_common::error::Retry;

    use super::kept::KEPT;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn sh(script: &str) -> Command {
        Program::find("sh").unwrap().command(["-c", script])
    }

    #[test]
    fn a_program_gets_only_a_clean_environment_and_nothing_to_read() {
        let output = sh("env | cut -d= -f1 | sort | grep -v '^_$'; cat")
            .succeed(LONG)
            .unwrap();
        let names: Vec<_> = output.stdout.lines().filter(|name| *name != "PWD").collect();
        assert!(
            names == ["HOME", "LC_ALL", "PATH"] || names == ["LC_ALL", "PATH"],
            "{names:?}"
        );
    }

    #[test]
    fn a_program_runs_where_it_is_told_with_what_it_is_given_and_no_text_has_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let command = sh("pwd; echo $KEY; exit 1")
            .in_folder(folder.path())
            .with_environment("KEY", "s3cret");
        let output = command.run(LONG).unwrap();
        assert_eq!(output.stdout, format!("{}\ns3cret\n", folder.path().display()));
        let fault = command.succeed(LONG).unwrap_err();
        for text in [
            format!("{command}"),
            format!("{command:?}"),
            format!("{fault:?} {fault}"),
        ] {
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn a_bound_program_dies_with_whoever_started_it() {
        let setpriv = Program::find("setpriv").unwrap();
        let bound = sh("echo begun; exec sleep 60").dies_with_us(&setpriv);
        assert!(
            bound.to_string().ends_with("sh -c \"echo begun; exec sleep 60\""),
            "{bound}"
        );
        // The thread that started it ends, as the whole process would.
        let start = move || {
            let mut child = bound.start(Stdio::piped(), Stdio::null()).unwrap();
            let mut begun = [0; 5];
            child.stdout.take().unwrap().read_exact(&mut begun).unwrap();
            child
        };
        let mut child = std::thread::spawn(start).join().unwrap();
        let begun = Instant::now();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_failure_names_the_program_its_arguments_its_status_and_its_last_words() {
        let fault = sh("echo first >&2; echo 'no such pool' >&2; exit 3")
            .succeed(LONG)
            .unwrap_err();
        let text = fault.to_string();
        assert!(
            text.contains("sh -c") && text.contains("exit status: 3: no such pool"),
            "{text}"
        );
        assert_eq!(fault.retry(), Retry::Never);
    }

    #[test]
    fn a_deadline_kills_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join("child");
        let begun = Instant::now();
        let fault = sh(&format!("sleep 60 & echo $! > {}; wait", child.display()))
            .run(Duration::from_millis(500))
            .unwrap_err();
        assert!(matches!(fault, CommandFault::TimedOut { .. }), "{fault}");
        assert_eq!(fault.retry(), Retry::ReadBack);
        assert!(begun.elapsed() < Duration::from_secs(20));
        let pid = std::fs::read_to_string(child).unwrap();
        // Gone, or a zombie that nobody has reaped yet; a killed process may take a moment to die.
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} lives", pid.trim());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_daemon_that_keeps_the_pipe_open_is_neither_waited_for_nor_killed() {
        let begun = Instant::now();
        let output = sh("sleep 60 & echo $!").succeed(LONG).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
        let pid = Pid::from_raw(output.stdout.trim().parse().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).expect("the daemon lives");
    }

    #[test]
    fn a_daemon_that_is_left_behind_writes_to_the_file_and_a_failure_has_its_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("new/start.log");
        let pid = folder.path().join("pid");
        let start = sh(&format!("echo begun; sleep 60 & echo $! > {}", pid.display()));
        start.leave_behind(LONG, &log).unwrap();
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        for descriptor in [1, 2] {
            let writes = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
            assert_eq!(writes, log, "a pipe would break with the agent");
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "begun\n");
        let failing = sh("head -c 300000 /dev/zero | tr '\\0' a; echo; echo no such pool >&2; exit 3");
        let fault = failing.leave_behind(LONG, &log).unwrap_err();
        assert!(
            fault.to_string().ends_with("exit status: 3: no such pool"),
            "{fault}"
        );
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the daemon lives");

        let fault = start
            .leave_behind(LONG, Path::new("/proc/no/start.log"))
            .unwrap_err();
        assert!(fault.to_string().contains("/proc/no/start.log"), "{fault}");
    }

    #[test]
    fn output_without_end_is_bounded() {
        let output = sh(
            "head -c 300000 /dev/zero | tr '\\0' a; head -c 300000 /dev/zero | tr '\\0' b >&2; echo end >&2",
        )
        .succeed(LONG)
        .unwrap();
        assert_eq!(output.stdout.len(), KEPT);
        assert_eq!(output.stderr.len(), KEPT);
        assert!(output.stderr.ends_with("bend\n"));
    }

    #[test]
    fn what_cannot_be_executed_is_refused_before_it_is_needed() {
        assert!(
            Program::find("no-such-program")
                .unwrap_err()
                .to_string()
                .contains("no-such-program")
        );
        for path in ["/etc/passwd", "/", "relative"] {
            assert!(matches!(
                Program::at(Path::new(path)),
                Err(CommandFault::NotExecutable { .. })
            ));
        }
    }
}
