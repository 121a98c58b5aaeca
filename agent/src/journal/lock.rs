//! One agent a state directory.
//!
//! Two locks, each of which the kernel gives back whatever the end of the process is. The file in the directory keeps away
//! whoever shares the directory, also from another network namespace. The name keeps away whoever has the same path, though
//! the directory under the running agent was removed, moved or put back from a copy: what can be removed excludes nobody.
//! Anybody on the machine can take a name, so the invariant: a process that is not ours may weaken the second lock, and keeps
//! no agent from starting.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::unistd::{Uid, geteuid};
use uuid::Uuid;

use super::state_dir::StateDirError;

/// How often a name is asked for that somebody has who does not answer: far longer than an agent takes from having its name to
/// listening.
const TRIES: usize = 100;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    /// None where a process of somebody else has the name.
    _name: Option<UnixListener>,
}

impl Lock {
    /// Of the directory at `path`, which is there.
    ///
    /// # Errors
    /// When another agent holds it, or it cannot be told.
    pub(super) fn take(path: &Path) -> Result<Self, StateDirError> {
        let file = path.join("lock");
        let io = |source| StateDirError::Io {
            path: file.clone(),
            source,
        };
        let locked = || StateDirError::Locked {
            path: path.to_owned(),
        };
        let mut options = OpenOptions::new();
        let opened = options.create(true).append(true).mode(0o600).open(&file);
        let opened = opened.map_err(io)?;
        opened.try_lock().map_err(|refused| match refused {
            TryLockError::WouldBlock => locked(),
            TryLockError::Error(source) => io(source),
        })?;
        let name = match name(path).and_then(|name| claim(&name)).map_err(io)? {
            Claim::Made(listener) => Some(listener),
            Claim::OfAnAgent => return Err(locked()),
            Claim::OfSomebody => {
                tracing::warn!(
                    state_dir = %path.display(),
                    "another process has the name that keeps a second agent away; only the directory's own lock does"
                );
                None
            }
        };
        Ok(Self {
            _file: opened,
            _name: name,
        })
    }
}

/// An abstract name (unix(7)): there is no file of it, and it goes with the process. Paths are longer than names may be.
fn name(directory: &Path) -> io::Result<SocketAddr> {
    let path = directory.canonicalize()?;
    // Containers may share a network, and with it these names, though each has files of its own.
    let root = std::fs::metadata("/")?;
    let place = [
        &root.dev().to_ne_bytes()[..],
        &root.ino().to_ne_bytes(),
        path.as_os_str().as_bytes(),
    ];
    let key = Uuid::new_v5(&Uuid::NAMESPACE_URL, &place.concat());
    SocketAddr::from_abstract_name(format!("hostler-agent/{key}"))
}

/// What became of asking for a name.
enum Claim {
    /// It is held as long as this lives.
    Made(UnixListener),
    /// A process of our own user listens at it.
    OfAnAgent,
    /// Somebody else has it, or somebody who does not answer.
    OfSomebody,
}

fn claim(name: &SocketAddr) -> io::Result<Claim> {
    for _ in 0..TRIES {
        match UnixListener::bind_addr(name) {
            Ok(listener) => return Ok(Claim::Made(listener)),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => {}
        }
        match listening_at(name)? {
            Some(user) if user == geteuid() => return Ok(Claim::OfAnAgent),
            Some(_) => return Ok(Claim::OfSomebody),
            // It has ended meanwhile, or is just beginning.
            None => std::thread::yield_now(),
        }
    }
    Ok(Claim::OfSomebody)
}

/// Whose process listens at `name`. None when none answers. Never waits: whoever has the name may let callers wait for ever.
fn listening_at(name: &SocketAddr) -> io::Result<Option<Uid>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asking = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new_abstract(name.as_abstract_name().unwrap_or_default())?;
    if connect(asking.as_raw_fd(), &address).is_err() {
        return Ok(None);
    }
    let holder = getsockopt(&asking, PeerCredentials)?;
    Ok(Some(Uid::from_raw(holder.uid())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    #[test]
    fn a_directory_that_is_made_anew_under_a_running_agent_is_still_its_own() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        fs::create_dir(&path).unwrap();
        let first = Lock::take(&path).unwrap();
        fs::rename(&path, place.path().join("aside")).unwrap();
        fs::create_dir(&path).unwrap();
        let refused = Lock::take(&path).unwrap_err();
        assert!(matches!(refused, StateDirError::Locked { .. }), "{refused}");
        drop(first);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn whoever_takes_the_name_and_does_not_answer_keeps_no_agent_from_starting() {
        let place = tempfile::tempdir().unwrap();
        let name = name(place.path()).unwrap();
        let address = UnixAddr::new_abstract(name.as_abstract_name().unwrap()).unwrap();
        let open = || {
            socket(
                AddressFamily::Unix,
                SockType::Stream,
                SockFlag::SOCK_NONBLOCK,
                None,
            )
            .unwrap()
        };
        let squatter = open();
        bind(squatter.as_raw_fd(), &address).unwrap();
        let lock = Lock::take(place.path()).unwrap();
        assert!(lock._name.is_none());
        drop(lock);
        // One that listens, with as many callers as may wait.
        listen(&squatter, Backlog::new(0).unwrap()).unwrap();
        let mut callers = Vec::new();
        loop {
            let caller = open();
            if connect(caller.as_raw_fd(), &address).is_err() {
                break;
            }
            callers.push(caller);
        }
        assert!(!callers.is_empty());
        assert!(Lock::take(place.path()).unwrap()._name.is_none());
    }
}
