//! One agent a state directory.
//!
//! Two locks, each of which the kernel gives back whatever the end of the process is. The file in the directory keeps away
//! whoever shares the directory, also from another network namespace. The name keeps away whoever has the same path, though
//! the directory under the running agent was removed, moved or put back from a copy: what can be removed excludes nobody.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use uuid::Uuid;

use super::state_dir::StateDirError;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    /// None where a process of somebody else has the name, which anybody can take.
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
        let name = name(path).map_err(io)?;
        let listener = match UnixListener::bind_addr(&name) {
            Ok(listener) => Some(listener),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(io(error)),
            Err(_) if is_ours(&name) => return Err(locked()),
            Err(_) => {
                tracing::warn!(
                    state_dir = %path.display(),
                    "another user's process has the name that keeps a second agent away; only the directory's own lock does"
                );
                None
            }
        };
        Ok(Self {
            _file: opened,
            _name: listener,
        })
    }
}

/// An abstract name (unix(7)): there is no file of it, and it goes with the process. Paths are longer than names may be.
fn name(directory: &Path) -> io::Result<SocketAddr> {
    let path = directory.canonicalize()?;
    let key = Uuid::new_v5(&Uuid::NAMESPACE_URL, path.as_os_str().as_bytes());
    SocketAddr::from_abstract_name(format!("hostler-agent/{key}"))
}

/// Whether a process of our own user has the name. One that ends meanwhile counts: whoever starts it again finds it free.
fn is_ours(name: &SocketAddr) -> bool {
    let Ok(other) = UnixStream::connect_addr(name) else {
        return true;
    };
    getsockopt(&other, PeerCredentials).is_ok_and(|holder| holder.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::fs;

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
}
