//! Whether a declared shared path is what it should be: the right mount, writable, its libvirt pool active.
//!
//! A file system whose server is gone hangs whoever touches it, so each path is touched on a thread of its own,
//! by one check at a time, and waited for within [`DEADLINE`]. The invariant: a path that hangs takes one thread
//! and tells nothing of the others.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use hostler_common::error::Retry;
use nix::fcntl::OFlag;
use thiserror::Error;

use crate::config::{AbsolutePath, PoolName, SharedStorageConfig};
use crate::libvirt::{Libvirt, LibvirtFault, Presence};
use crate::mount_table::{self, Mount};

/// How long a path may take to be written. A server that answers needs milliseconds.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// Why a shared path cannot be used.
#[derive(Debug, Error)]
pub enum StorageFault {
    /// The kernel does not tell what is mounted.
    #[error("cannot read what is mounted")]
    Mounts {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing is mounted there: the path is only a folder.
    #[error("nothing is mounted on {path}; mount {expected}")]
    NotMounted {
        /// The path.
        path: AbsolutePath,
        /// What should be.
        expected: String,
    },
    /// Something else is.
    #[error("{path} is mounted from {found} and not from {expected}")]
    OtherSource {
        /// The path.
        path: AbsolutePath,
        /// What should be.
        expected: String,
        /// What is.
        found: String,
    },
    /// It is of another type.
    #[error("{path} is mounted as {found} and not as {expected}")]
    OtherType {
        /// The path.
        path: AbsolutePath,
        /// What should be.
        expected: String,
        /// What is.
        found: String,
    },
    /// A file cannot be made in it.
    #[error("{path} is not writable: cannot {action} {}", probe.display())]
    NotWritable {
        /// The path.
        path: AbsolutePath,
        /// What failed.
        action: &'static str,
        /// The file.
        probe: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its file system does not answer.
    #[error(
        "{path} hangs: a check that it is writable did not return within {DEADLINE:?}; does its server answer?"
    )]
    Hangs {
        /// The path.
        path: AbsolutePath,
    },
    /// The kernel gives no thread to check it on.
    #[error("cannot start the check of {path}")]
    NoThread {
        /// The path.
        path: AbsolutePath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its pool is not active.
    #[error("the libvirt pool {pool} of {path} is not active")]
    PoolNotActive {
        /// The path.
        path: AbsolutePath,
        /// The pool.
        pool: PoolName,
    },
    /// libvirt does not tell.
    #[error("cannot tell whether the libvirt pool {pool} is active")]
    Pool {
        /// The pool.
        pool: PoolName,
        /// Why.
        #[source]
        source: LibvirtFault,
    },
}

impl StorageFault {
    /// What may be done about it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Mounts { .. }
            | Self::NotMounted { .. }
            | Self::OtherSource { .. }
            | Self::OtherType { .. }
            | Self::NotWritable { .. }
            | Self::PoolNotActive { .. } => Retry::Never,
            Self::Hangs { .. } | Self::NoThread { .. } => Retry::Later,
            Self::Pool { source, .. } => source.retry(),
        }
    }
}

/// A declared path, and whether a check of it runs.
#[derive(Debug)]
pub struct SharedPath {
    config: SharedStorageConfig,
    check: Arc<Check>,
}

/// What is known of the check of one path.
#[derive(Debug, Default)]
struct Check {
    running: Mutex<Running>,
    free: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Running {
    #[default]
    No,
    /// For less than the deadline, as far as anyone knows.
    Yes,
    /// Somebody has waited for it in vain. Nobody waits again until it returns.
    Hangs,
}

impl Check {
    fn set(&self, to: Running) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.free.notify_all();
    }
}

/// A check that was begun.
struct Begun(mpsc::Receiver<Result<(), StorageFault>>);

impl SharedPath {
    /// Of the configuration. It looks at nothing.
    pub fn new(config: SharedStorageConfig) -> Self {
        let check = Arc::default();
        Self { config, check }
    }

    /// What is declared.
    pub fn config(&self) -> &SharedStorageConfig {
        &self.config
    }

    /// Checks the path, within [`DEADLINE`] and what libvirt takes.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn check(&self, libvirt: &Libvirt) -> Result<(), StorageFault> {
        let until = Instant::now() + DEADLINE;
        let begun = self.begin(until, check_writable)?;
        self.end(begun, until)?;
        self.check_pool(libvirt)
    }

    fn begin(
        &self,
        until: Instant,
        write: impl FnOnce(&AbsolutePath) -> Result<(), StorageFault> + Send + 'static,
    ) -> Result<Begun, StorageFault> {
        let mounts = mount_table::mounts().map_err(|source| StorageFault::Mounts { source })?;
        check_mount(&self.config, &mounts)?;
        self.begin_writing(until, write)
    }

    fn begin_writing(
        &self,
        until: Instant,
        write: impl FnOnce(&AbsolutePath) -> Result<(), StorageFault> + Send + 'static,
    ) -> Result<Begun, StorageFault> {
        let path = self.config.path.clone();
        let running = self.check.running.lock().unwrap_or_else(PoisonError::into_inner);
        let at_most = until.saturating_duration_since(Instant::now());
        let waited = self
            .check
            .free
            .wait_timeout_while(running, at_most, |running| *running == Running::Yes);
        let (mut running, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *running != Running::No {
            return Err(StorageFault::Hangs { path });
        }
        let (tell, result) = mpsc::sync_channel(1);
        let (check, of) = (Arc::clone(&self.check), path.clone());
        let spawned = std::thread::Builder::new()
            .name("shared-path".into())
            .spawn(move || {
                let result = write(&of);
                // Free first: who has the result may check again.
                check.set(Running::No);
                let _ = tell.send(result);
            });
        spawned.map_err(|source| StorageFault::NoThread { path, source })?;
        *running = Running::Yes;
        Ok(Begun(result))
    }

    fn end(&self, begun: Begun, until: Instant) -> Result<(), StorageFault> {
        let at_most = until.saturating_duration_since(Instant::now());
        begun.0.recv_timeout(at_most).unwrap_or_else(|_| {
            let mut running = self.check.running.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have returned just now.
            if *running == Running::Yes {
                *running = Running::Hangs;
            }
            Err(StorageFault::Hangs {
                path: self.config.path.clone(),
            })
        })
    }

    fn check_pool(&self, libvirt: &Libvirt) -> Result<(), StorageFault> {
        let SharedStorageConfig { path, pool, .. } = &self.config;
        let Some(pool) = pool else { return Ok(()) };
        match libvirt.pool(pool) {
            Ok(Presence::Active) => Ok(()),
            Ok(Presence::Inactive | Presence::Absent) => Err(StorageFault::PoolNotActive {
                path: path.clone(),
                pool: pool.clone(),
            }),
            Err(source) => Err(StorageFault::Pool {
                pool: pool.clone(),
                source,
            }),
        }
    }
}

/// Checks all `paths` side by side, so that many that hang take no longer than one. In their order.
pub fn check_all(paths: &[SharedPath], libvirt: &Libvirt) -> Vec<Result<(), StorageFault>> {
    let until = Instant::now() + DEADLINE;
    let begun: Vec<_> = paths
        .iter()
        .map(|path| path.begin(until, check_writable))
        .collect();
    let ended = begun.into_iter().zip(paths);
    let ended = ended.map(|(begun, path)| begun.and_then(|begun| path.end(begun, until)));
    // libvirt is asked when no path is waited for any more: it may take its own time.
    let ended: Vec<_> = ended.collect();
    let all = ended.into_iter().zip(paths);
    all.map(|(ended, path)| ended.and_then(|()| path.check_pool(libvirt)))
        .collect()
}

fn check_mount(storage: &SharedStorageConfig, mounts: &[Mount]) -> Result<(), StorageFault> {
    let SharedStorageConfig {
        path, source, fstype, ..
    } = storage;
    let path = path.clone();
    let expected = source.clone();
    match mount_table::at(mounts, &storage.path) {
        None => Err(StorageFault::NotMounted { path, expected }),
        Some(mount) if mount.source != *source => Err(StorageFault::OtherSource {
            path,
            expected,
            found: mount.source.clone(),
        }),
        Some(mount) => match fstype {
            Some(expected) if mount.fstype != *expected => Err(StorageFault::OtherType {
                path,
                expected: expected.clone(),
                found: mount.fstype.clone(),
            }),
            _ => Ok(()),
        },
    }
}

/// Makes, flushes and removes a file. A mount that went read-only, or an NFS export that squashes root, shows
/// in nothing else.
fn check_writable(path: &AbsolutePath) -> Result<(), StorageFault> {
    // One name a host, since hosts share the path; the next probe removes what a crash left.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let probe = path.join(format!(".hostler-probe-{}", host.trim()));
    let fault = |action| {
        let (path, probe) = (path.clone(), probe.clone());
        move |source| StorageFault::NotWritable {
            path,
            action,
            probe,
            source,
        }
    };
    let written = write_probe(&probe);
    let removed = std::fs::remove_file(&probe);
    written.map_err(fault("write"))?;
    match removed {
        // Another check at the same time was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(fault("remove")),
    }
}

/// Other hosts write to the path too, so what has the name of the probe may be a trap: a link to a file of this
/// host, or a pipe that nobody reads.
fn write_probe(probe: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(probe)?;
    file.write_all(b"hostler\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(path: &Path, fstype: Option<&str>) -> SharedStorageConfig {
        SharedStorageConfig {
            path: path.to_owned().try_into().unwrap(),
            source: "nas:/isard".into(),
            fstype: fstype.map(str::to_owned),
            pool: None,
        }
    }

    fn mount(source: &str, fstype: &str) -> Vec<Mount> {
        vec![Mount {
            device: 0,
            root: "/".into(),
            writing: mount_table::Writing::Possible,
            path: "/isard".into(),
            fstype: fstype.into(),
            source: source.into(),
        }]
    }

    #[test]
    fn the_expected_mount_is_taken_and_every_other_named() {
        let isard = Path::new("/isard");
        let check = |fstype, mounts: &[Mount]| {
            check_mount(&storage(isard, fstype), mounts).map_err(|fault| fault.to_string())
        };
        assert_eq!(check(None, &mount("nas:/isard", "nfs4")), Ok(()));
        assert_eq!(check(Some("nfs4"), &mount("nas:/isard", "nfs4")), Ok(()));
        assert_eq!(
            check(None, &[]),
            Err("nothing is mounted on /isard; mount nas:/isard".into())
        );
        assert_eq!(
            check(None, &mount("other:/isard", "nfs4")),
            Err("/isard is mounted from other:/isard and not from nas:/isard".into())
        );
        assert_eq!(
            check(Some("nfs4"), &mount("nas:/isard", "nfs")),
            Err("/isard is mounted as nfs and not as nfs4".into())
        );
    }

    #[test]
    fn a_writable_folder_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().to_owned().try_into().unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_or_a_pipe_in_the_place_of_the_probe_is_not_followed_and_goes() {
        let shared = tempfile::tempdir().unwrap();
        let path: AbsolutePath = shared.path().to_owned().try_into().unwrap();
        let own = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(own.path(), "precious").unwrap();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let probe = shared.path().join(format!(".hostler-probe-{}", host.trim()));

        std::os::unix::fs::symlink(own.path(), &probe).unwrap();
        check_writable(&path).unwrap_err();
        assert_eq!(std::fs::read_to_string(own.path()).unwrap(), "precious");
        check_writable(&path).unwrap();

        nix::unistd::mkfifo(&probe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        check_writable(&path).unwrap_err();
        check_writable(&path).unwrap();
    }

    #[test]
    fn a_path_that_hangs_is_waited_for_once_and_checked_again_when_it_answers() {
        let shared = SharedPath::new(storage(Path::new("/isard"), None));
        let (release, hang) = mpsc::channel::<()>();
        let soon = || Instant::now() + Duration::from_millis(20);
        let until = soon();
        let begun = shared.begin_writing(until, move |_| {
            let _ = hang.recv();
            Ok(())
        });
        let fault = shared.end(begun.unwrap(), until).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "/isard hangs: a check that it is writable did not return within 3s; does its server answer?"
        );
        assert_eq!(fault.retry(), Retry::Later);
        let begin = Instant::now();
        let again = begin + Duration::from_secs(60);
        assert!(matches!(
            shared.begin_writing(again, |_| Ok(())),
            Err(StorageFault::Hangs { .. })
        ));
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "it was waited for again"
        );

        release.send(()).unwrap();
        let running = shared.check.running.lock().unwrap();
        let free = shared
            .check
            .free
            .wait_while(running, |running| *running != Running::No);
        drop(free.unwrap());
        let begun = shared.begin_writing(again, |_| Ok(())).unwrap();
        shared.end(begun, again).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        // Not even root writes there.
        let fault = check_writable(&PathBuf::from("/proc/self").try_into().unwrap()).unwrap_err();
        assert!(
            fault
                .to_string()
                .starts_with("/proc/self is not writable: cannot write"),
            "{fault}"
        );
    }
}
