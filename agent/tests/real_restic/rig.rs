//! A pool that is a plain directory, its repository, and operations on them without an executor: each step is
//! looked at, applied, and undone as the executor would.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostler_agent::backup::{Backups, Keep, Settings};
use hostler_agent::command::Program;
use hostler_agent::executor::plan::{Job, Planned};
use hostler_agent::executor::step::{Before, Listener, Progress, StepError};
use hostler_agent::storage::pool::{Change, PoolState, Profile, Snapshot};
use hostler_agent::storage::{Backend, PoolFault};
use hostler_common::bytes::Bytes;
use hostler_common::error::Retry;
use hostler_common::id::OperationId;
use hostler_common::operation::{BackupId, ReadShare, Request, RestoreInto};
use hostler_common::rpc::hostler::agent::v1::Measure;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Runs a program to a good end.
pub(crate) fn tool(name: &str, arguments: &[&str]) -> String {
    let command = Program::find(name).unwrap().command(arguments.iter().copied());
    command
        .succeed(LONG)
        .unwrap_or_else(|fault| panic!("{fault}"))
        .stdout
}

/// A directory whose snapshot is itself; a file beside it says whether it is taken.
pub(crate) struct Plain {
    path: PathBuf,
    taken: PathBuf,
    /// Whether snapshots can be removed.
    pub(crate) sticks: AtomicBool,
    pub(crate) unmounted: AtomicBool,
}

impl Backend for Plain {
    fn kind(&self) -> &'static str {
        "plain"
    }

    fn look(&self) -> Result<PoolState, PoolFault> {
        if self.unmounted.load(Ordering::Relaxed) {
            return Err(PoolFault::new("pool default is not mounted", Retry::Never));
        }
        Ok(PoolState {
            size: Bytes(1 << 30),
            used: Bytes::ZERO,
            data_used: Bytes::ZERO,
            metadata_used: Bytes::ZERO,
            data_free: Bytes::ZERO,
            metadata_allocated: Bytes::ZERO,
            data: Profile::Single,
            metadata: Profile::Single,
            members: Vec::new(),
            spares: Vec::new(),
        })
    }

    fn is_done(&self, _change: &Change) -> Result<bool, PoolFault> {
        unimplemented_here()
    }

    fn apply(&self, _change: &Change, _progress: &Progress) -> Result<(), StepError> {
        Ok(unimplemented_here()?)
    }

    fn revert(&self, _change: &Change, _progress: &Progress) -> Result<(), StepError> {
        Ok(unimplemented_here()?)
    }

    fn take_snapshot(&self) -> Result<Snapshot, PoolFault> {
        std::fs::write(&self.taken, "").unwrap();
        Ok(Snapshot {
            path: self.path.clone(),
        })
    }

    fn found_snapshot(&self) -> Result<Option<Snapshot>, PoolFault> {
        Ok(self.taken.exists().then(|| Snapshot {
            path: self.path.clone(),
        }))
    }

    fn remove_snapshot(&self) -> Result<(), PoolFault> {
        if self.sticks.load(Ordering::Relaxed) {
            return unimplemented_here();
        }
        let _ = std::fs::remove_file(&self.taken);
        Ok(())
    }
}

fn unimplemented_here<T>() -> Result<T, PoolFault> {
    Err(PoolFault::new("a plain directory cannot do this", Retry::Never))
}

/// What an operation said, and when somebody cancels it.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) measures: Mutex<Vec<Measure>>,
    pub(crate) conclusion: Mutex<Option<String>>,
    cancel: Mutex<Option<Wish>>,
}

type Wish = Box<dyn Fn(&Story) -> bool + Send + Sync>;

impl Story {
    /// Somebody cancels as soon as `when` holds; it is asked whenever the step asks.
    pub(crate) fn cancelled_when(when: impl Fn(&Self) -> bool + Send + Sync + 'static) -> Arc<Self> {
        let story = Self::default();
        *story.cancel.lock().unwrap() = Some(Box::new(when));
        Arc::new(story)
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub(crate) fn concluded(&self) -> String {
        self.conclusion.lock().unwrap().clone().unwrap_or_default()
    }

    pub(crate) fn progress(self: &Arc<Self>) -> Progress {
        Progress::to(Hears {
            story: Arc::clone(self),
            deaf: false,
        })
    }

    /// As for an undo: nobody cancels it.
    fn deaf(self: &Arc<Self>) -> Progress {
        Progress::to(Hears {
            story: Arc::clone(self),
            deaf: true,
        })
    }
}

struct Hears {
    story: Arc<Story>,
    deaf: bool,
}

impl Listener for Hears {
    fn line(&self, line: String) {
        self.story.lines.lock().unwrap().push(line);
    }

    fn measure(&self, measure: Measure) {
        self.story.measures.lock().unwrap().push(measure);
    }

    fn conclusion(&self, words: String) {
        *self.story.conclusion.lock().unwrap() = Some(words);
    }

    fn cancelled(&self) -> Option<String> {
        let wish = self.story.cancel.lock().unwrap();
        let wish = wish.as_ref().filter(|_| !self.deaf)?;
        wish(&self.story).then(|| "somebody".to_owned())
    }
}

pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) backend: Arc<Plain>,
    pub(crate) settings: Settings,
    pub(crate) backups: Backups,
}

impl Rig {
    /// With an empty pool, and a repository that has been made.
    pub(crate) fn new() -> Self {
        let rig = Self::without_repository();
        rig.restic(&["init"]);
        rig
    }

    pub(crate) fn without_repository() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("pool")).unwrap();
        std::fs::create_dir(path("restored")).unwrap();
        std::fs::write(path("password"), "s3cret-p4ss\n").unwrap();
        let settings = Settings {
            pool: "default".parse().unwrap(),
            pool_path: path("pool"),
            repository: path("repository").display().to_string(),
            password_file: path("password"),
            environment: Vec::new(),
            read_back: ReadShare::try_from(20).unwrap(),
            keep: Keep {
                last: 3,
                ..Keep::default()
            },
            restore_into: vec![path("restored")],
            cache_dir: path("cache"),
        };
        let backend = Arc::new(Plain {
            path: path("pool"),
            taken: path("taken"),
            sticks: AtomicBool::new(false),
            unmounted: AtomicBool::new(false),
        });
        let backups = Self::backups(&settings, &backend);
        Self {
            folder,
            backend,
            settings,
            backups,
        }
    }

    fn backups(settings: &Settings, backend: &Arc<Plain>) -> Backups {
        Backups::patient(settings.clone(), Arc::clone(backend) as _, Duration::from_secs(3)).unwrap()
    }

    /// As after a restart of the agent, with other settings.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.backups = Self::backups(&self.settings, &self.backend);
    }

    pub(crate) fn pool(&self, path: &str) -> PathBuf {
        self.settings.pool_path.join(path)
    }

    pub(crate) fn restored(&self, path: &str) -> PathBuf {
        self.folder.path().join("restored").join(path)
    }

    pub(crate) fn repository(&self) -> &Path {
        Path::new(&self.settings.repository)
    }

    /// Plain restic, as a person would call it.
    pub(crate) fn restic(&self, arguments: &[&str]) -> String {
        let password = self.settings.password_file.to_str().unwrap();
        let mut all = vec!["-r", &self.settings.repository, "-p", password, "--no-cache"];
        all.extend_from_slice(arguments);
        tool("restic", &all)
    }

    /// Whole ones: a restic that is stopped may leave a part of one, which means nothing.
    pub(crate) fn locks(&self) -> usize {
        std::fs::read_dir(self.repository().join("locks"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().len() == 64)
            .count()
    }

    pub(crate) fn snapshot_is_taken(&self) -> bool {
        self.backend.found_snapshot().unwrap().is_some()
    }

    pub(crate) fn plan(&self, job: &Job, decided: Option<&Value>) -> Result<Planned, String> {
        self.backups.plan(job, decided)
    }

    /// Runs to the end. Err is why it failed, after everything was undone.
    pub(crate) fn run(&self, request: Request) -> Result<String, String> {
        let story = Arc::new(Story::default());
        self.tell(request, &story).map(|()| story.concluded())
    }

    pub(crate) fn tell(&self, request: Request, story: &Arc<Story>) -> Result<(), String> {
        self.tell_job(&job(request), story)
    }

    pub(crate) fn tell_job(&self, job: &Job, story: &Arc<Story>) -> Result<(), String> {
        let planned = self.plan(job, None)?;
        let mut befores = Vec::new();
        for (place, step) in planned.steps.iter().enumerate() {
            let applied = step.look().and_then(|before| {
                befores.push(before);
                step.apply(before, &story.progress())
            });
            if let Err(cause) = applied {
                undo(&planned, &befores, story);
                return Err(format!("step {} ({}): {cause}", place + 1, step.name()));
            }
        }
        Ok(())
    }

    pub(crate) fn back_up(&self) -> String {
        self.run(Request::CreateBackup).unwrap()
    }

    pub(crate) fn verify(&self) -> Result<String, String> {
        self.run(Request::VerifyBackup {
            id: None,
            read: ReadShare::ALL,
        })
    }

    pub(crate) fn restore(&self, into: RestoreInto, paths: &[&str]) -> Result<String, String> {
        self.run(restore(into, paths))
    }
}

/// Undoes every step that was begun, the last first.
pub(crate) fn undo(planned: &Planned, befores: &[Before], story: &Arc<Story>) {
    for (step, before) in planned.steps.iter().zip(befores).rev() {
        step.undo(*before, &story.deaf()).unwrap();
    }
}

pub(crate) fn job(request: Request) -> Job {
    Job {
        operation: OperationId::generate(),
        resource: "default".parse().unwrap(),
        request,
    }
}

pub(crate) fn restore(into: RestoreInto, paths: &[&str]) -> Request {
    Request::RestoreBackup {
        id: BackupId::Latest,
        into,
        paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
    }
}
