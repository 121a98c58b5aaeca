//! Calls of restic on one repository: listened to, stopped when the operation is cancelled, waiting for locks.
//!
//! The repository is never made here: a backup disk that is not mounted would get a new, empty one. The
//! invariant: a restic that was stopped or killed leaves no lock behind.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hostler_common::error::excerpt;
use hostler_common::id::PoolName;

use super::fault::{self, Place, ResticFault};
use super::locks;
use super::messages::{Forgotten, Node, Snapshot, Unread};
use super::program::{self, Restic};
use crate::command::{CommandFault, KeepGoing, Output};
use crate::executor::step::Progress;

/// A first backup of a large pool takes days, and is listened to all the time.
pub(in super::super) const DAYS: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long somebody waits who cannot cancel: a person with a question, or a plan.
const ANSWERED_WITHIN: Duration = Duration::from_secs(100);
/// How long what follows a failure may take before it is left to the next operation.
const UNDONE_WITHIN: Duration = Duration::from_secs(60);
/// The same for removing the lock of a call that was stopped.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(15);
/// Names of files that could not be read, in an error.
const NAMES: usize = 5;

/// Who listens to a call, and whether a cancel stops it.
pub(in super::super) struct Ear<'a> {
    progress: Option<&'a Progress>,
    cancel: Cancel,
    /// The longest that one call may take: a repository on the network may never answer.
    within: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancel {
    Heeded,
    Ignored,
}

impl<'a> Ear<'a> {
    /// A cancel stops the call.
    pub(in super::super) fn of(progress: &'a Progress) -> Self {
        Self {
            progress: Some(progress),
            cancel: Cancel::Heeded,
            within: DAYS,
        }
    }

    /// For what goes on though the operation is cancelled, but not for long.
    pub(in super::super) fn deaf(progress: &'a Progress) -> Self {
        Self {
            progress: Some(progress),
            cancel: Cancel::Ignored,
            within: UNDONE_WITHIN,
        }
    }

    /// Nobody listens, and nobody can cancel.
    pub(in super::super) fn none() -> Self {
        Self {
            progress: None,
            cancel: Cancel::Ignored,
            within: ANSWERED_WITHIN,
        }
    }

    /// For removing a lock, of which nobody hears.
    fn unlocking() -> Self {
        Self {
            within: UNLOCKED_WITHIN,
            ..Self::none()
        }
    }

    pub(in super::super) fn say(&self, line: impl Into<String>) {
        if let Some(progress) = self.progress {
            progress.say(line);
        }
    }

    pub(in super::super) fn check(&self) -> Result<(), ResticFault> {
        match (self.progress, self.cancel) {
            (Some(progress), Cancel::Heeded) => progress.check_cancelled().map_err(ResticFault::Stopped),
            _ => Ok(()),
        }
    }
}

/// One call of restic.
pub(in super::super) struct Call<'c> {
    what: &'static str,
    arguments: Vec<String>,
    folder: Option<PathBuf>,
    on_line: Option<&'c mut dyn FnMut(&str)>,
    /// Called a few times a second while it runs.
    tick: Option<&'c mut dyn FnMut()>,
}

impl<'c> Call<'c> {
    pub(in super::super) fn of<S: AsRef<str>>(what: &'static str, arguments: &[S]) -> Self {
        Self {
            what,
            arguments: arguments
                .iter()
                .map(|argument| argument.as_ref().to_owned())
                .collect(),
            folder: None,
            on_line: None,
            tick: None,
        }
    }

    pub(in super::super) fn folder(mut self, folder: PathBuf) -> Self {
        self.folder = Some(folder);
        self
    }

    pub(in super::super) fn on_line(mut self, on_line: &'c mut dyn FnMut(&str)) -> Self {
        self.on_line = Some(on_line);
        self
    }

    pub(in super::super) fn tick(mut self, tick: &'c mut dyn FnMut()) -> Self {
        self.tick = Some(tick);
        self
    }
}

/// A repository as one pool sees it.
#[derive(Debug)]
pub(in super::super) struct Repository {
    pub(super) restic: Restic,
    pub(in super::super) pool: PoolName,
    address: String,
    password_file: PathBuf,
    pub(super) patience: Duration,
}

impl Repository {
    pub(in super::super) fn new(
        restic: Restic,
        settings: &super::super::Settings,
        patience: Duration,
    ) -> Self {
        Self {
            restic,
            pool: settings.pool.clone(),
            address: program::for_people(&settings.repository),
            password_file: settings.password_file.clone(),
            patience,
        }
    }

    /// Without credentials.
    pub(in super::super) fn for_people(&self) -> &str {
        &self.address
    }

    /// Runs `call` to a good end. While the repository is locked by somebody who lives, it waits, with patience.
    pub(in super::super) fn run(&self, mut call: Call<'_>, ear: &Ear<'_>) -> Result<Output, ResticFault> {
        let mut begun: Option<Instant> = None;
        loop {
            match self.attempt(&mut call, ear) {
                Err(fault @ ResticFault::Locked { .. }) => locks::wait(self, fault, &mut begun, ear)?,
                Err(ResticFault::Stopped(cancelled)) => {
                    // It was told to stop by SIGTERM, which restic 0.14 does not take as a reason to unlock.
                    // What cannot be removed now is stale for the next one, too.
                    let _ = self.attempt(&mut Call::of("unlock", &["unlock"]), &Ear::unlocking());
                    return Err(ResticFault::Stopped(cancelled));
                }
                end => return end,
            }
        }
    }

    /// The same without waiting.
    pub(super) fn run_once(&self, mut call: Call<'_>, ear: &Ear<'_>) -> Result<Output, ResticFault> {
        self.attempt(&mut call, ear)
    }

    fn attempt(&self, call: &mut Call<'_>, ear: &Ear<'_>) -> Result<Output, ResticFault> {
        ear.check()?;
        let command = self.restic.command(&call.arguments);
        let command = match &call.folder {
            Some(folder) => command.in_folder(folder),
            None => command,
        };
        let mut stopped = None;
        let mut go_on = || {
            if let Some(tick) = &mut call.tick {
                tick();
            }
            match ear.check() {
                Ok(()) => KeepGoing::Yes,
                Err(fault) => {
                    stopped = Some(fault);
                    KeepGoing::Stop
                }
            }
        };
        let mut nobody = |_: &str| ();
        let on_line: &mut dyn FnMut(&str) = match &mut call.on_line {
            Some(on_line) => *on_line,
            None => &mut nobody,
        };
        let output = match command.follow(on_line, &mut go_on, ear.within) {
            Ok(output) => output,
            Err(CommandFault::TimedOut { deadline, .. }) => {
                return Err(ResticFault::Silent {
                    repository: self.address.clone(),
                    within: deadline,
                });
            }
            Err(source) => return Err(ResticFault::Program { source }),
        };
        match stopped {
            Some(fault) => Err(fault),
            None if output.status.success() => Ok(output),
            None => Err(self.fault(call.what, &output)),
        }
    }

    fn fault(&self, what: &'static str, output: &Output) -> ResticFault {
        let place = Place {
            repository: &self.address,
            password_file: &self.password_file,
            what,
        };
        match place.fault(output) {
            ResticFault::Unreadable { said } => ResticFault::Unreadable {
                said: unread(&output.stderr).unwrap_or(said),
            },
            fault => fault,
        }
    }

    fn pool_tags(&self) -> String {
        format!("hostler,pool:{}", self.pool)
    }

    /// The pool's backups, oldest first.
    pub(in super::super) fn backups(&self, ear: &Ear<'_>) -> Result<Vec<Snapshot>, ResticFault> {
        let (backups, passed_over) = self.readable(ear)?;
        if let Some(said) = passed_over {
            tracing::warn!(
                repository = self.address,
                said,
                "snapshots are damaged and passed over"
            );
        }
        Ok(backups)
    }

    /// The same, and what is said of damaged snapshots, which may be some of them.
    pub(in super::super) fn readable(
        &self,
        ear: &Ear<'_>,
    ) -> Result<(Vec<Snapshot>, Option<String>), ResticFault> {
        let mut line = String::new();
        let mut on_line = |text: &str| line.push_str(text);
        let arguments = ["snapshots", "--json", "--no-lock", "--tag", &self.pool_tags()];
        let output = self.run(Call::of("snapshots", &arguments).on_line(&mut on_line), ear)?;
        let mut backups: Vec<Snapshot> =
            serde_json::from_str(&line).map_err(|source| ResticFault::Answer {
                what: "snapshots",
                source,
            })?;
        backups.sort_by_key(Snapshot::unix_ms);
        Ok((backups, fault::passed_over(&output.stderr)))
    }

    /// Forgets one backup and frees the room of what only it held.
    pub(in super::super) fn forget(&self, id: &str, ear: &Ear<'_>) -> Result<(), ResticFault> {
        self.run(Call::of("forget", &["forget", id, "--prune"]), ear)
            .map(|_| ())
    }

    /// Forgets one backup now or not at all: nobody who lives is waited for. Its room is freed later.
    pub(in super::super) fn forget_now(&self, id: &str, ear: &Ear<'_>) -> Result<(), ResticFault> {
        let forget = || {
            self.run_once(Call::of("forget", &["forget", id]), ear)
                .map(|_| ())
        };
        match forget() {
            Err(ResticFault::Locked { .. }) => {
                self.run_once(Call::of("unlock", &["unlock"]), ear)?;
                forget()
            }
            end => end,
        }
    }

    /// Forgets the pool's backups that no rule of `rules` keeps, and frees their room. `keep_tag` is kept anyway.
    pub(in super::super) fn forget_by_rules(
        &self,
        rules: &[String],
        keep_tag: &str,
        ear: &Ear<'_>,
    ) -> Result<Forgotten, ResticFault> {
        let mut arguments: Vec<String> = [
            "forget",
            "--json",
            "--prune",
            "--group-by",
            "",
            "--keep-tag",
            keep_tag,
            "--tag",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(self.pool_tags());
        arguments.extend_from_slice(rules);
        let mut groups = Ok(Vec::new());
        let mut on_line = |line: &str| {
            // What the prune says follows it, and is for people.
            if line.starts_with("[{") {
                groups = serde_json::from_str::<Vec<Forgotten>>(line);
            }
        };
        self.run(Call::of("forget", &arguments).on_line(&mut on_line), ear)?;
        let groups = groups.map_err(|source| ResticFault::Answer {
            what: "forget",
            source,
        })?;
        let mut all = Forgotten {
            keep: Some(Vec::new()),
            remove: Some(Vec::new()),
        };
        for group in groups {
            all.keep
                .iter_mut()
                .for_each(|keep| keep.extend(group.keep.clone().unwrap_or_default()));
            all.remove
                .iter_mut()
                .for_each(|remove| remove.extend(group.remove.clone().unwrap_or_default()));
        }
        Ok(all)
    }

    /// Everything in a backup, one by one.
    pub(in super::super) fn nodes(
        &self,
        id: &str,
        on_node: &mut dyn FnMut(Node),
        ear: &Ear<'_>,
    ) -> Result<(), ResticFault> {
        let mut broken = None;
        let mut on_line = |line: &str| match serde_json::from_str::<Node>(line) {
            Ok(node) if node.struct_type == "node" => on_node(node),
            Ok(_) => {}
            Err(source) => broken = Some(source),
        };
        self.run(
            Call::of("ls", &["ls", "--json", "--no-lock", id]).on_line(&mut on_line),
            ear,
        )?;
        match broken {
            None => Ok(()),
            Some(source) => Err(ResticFault::Answer { what: "ls", source }),
        }
    }
}

pub(in super::super) fn unread(stderr: &str) -> Option<String> {
    let names: Vec<String> = stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Unread>(line).ok())
        .filter(|message| message.message_type == "error")
        .map(|message| message.item)
        .collect();
    let first = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    let first = excerpt(&first);
    match names.len().saturating_sub(NAMES) {
        _ if names.is_empty() => None,
        0 => Some(first.into_owned()),
        more => Some(format!("{first} and {more} more")),
    }
}
