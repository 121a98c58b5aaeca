//! Where the proxy listens. It refuses what others could reach, and never takes a socket file away from a
//! process that still listens on it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::stat::{Mode, umask};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::tunnel::Local;

/// Where to listen, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => return Err("the path after unix: is empty".into()),
            Some(path) => return Ok(Self::Unix(path.into())),
            None => {}
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        address.parse().map(Self::Tcp).map_err(|_| {
            "write an IP address with a port, as 127.0.0.1:1312 or [::1]:1312, or unix:/path".into()
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads permission bits, as `0600`. Without write permission for its owner, nobody could connect.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o777 == 0 && mode & 0o200 != 0 => Ok(mode),
        _ => Err("write permission bits in octal, at least 0200, as 0600 or 0660".into()),
    }
}

/// Why there is nothing to connect to.
#[derive(Debug, Error)]
pub(crate) enum ListenError {
    /// Others could reach it.
    #[error("{address} is no loopback address: everyone who reaches it would act as this certificate")]
    Refused { address: SocketAddr },
    /// The kernel refuses the address.
    #[error("cannot listen on {address}")]
    Bind {
        address: String,
        #[source]
        source: io::Error,
    },
    /// Another proxy is there.
    #[error("another process listens on {}", path.display())]
    Busy { path: PathBuf },
    /// A file that is no socket is never replaced.
    #[error("{} exists and is no socket", path.display())]
    NotASocket { path: PathBuf },
}

impl ListenError {
    /// What to do about it.
    pub(crate) fn way_out(&self) -> String {
        match self {
            Self::Refused { address } => format!(
                "--listen 127.0.0.1:{}, or --allow-non-loopback if the network around it is trusted",
                address.port()
            ),
            Self::Bind { .. } => "another port or path, or end the process that has this one".into(),
            Self::Busy { .. } => "another path, or end that process".into(),
            Self::NotASocket { .. } => "another path".into(),
        }
    }
}

impl Listen {
    /// Begins to listen.
    pub(super) fn bind(&self, allow_non_loopback: bool, mode: u32) -> Result<Listener, ListenError> {
        match self {
            Self::Tcp(address) => {
                if !allow_non_loopback && !address.ip().to_canonical().is_loopback() {
                    return Err(ListenError::Refused { address: *address });
                }
                let bound = std::net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    let address = listener.local_addr()?;
                    Ok(Listener::Tcp(TcpListener::from_std(listener)?, address))
                });
                bound.map_err(|source| ListenError::Bind {
                    address: self.to_string(),
                    source,
                })
            }
            Self::Unix(path) => bind_unix(path, mode),
        }
    }
}

fn bind_unix(path: &Path, mode: u32) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Bind {
        address: format!("unix:{}", path.display()),
        source,
    };
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(ListenError::NotASocket {
                path: path.to_owned(),
            });
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Left behind by a process that is gone.
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => {
                return Err(ListenError::Busy {
                    path: path.to_owned(),
                });
            }
        }
    }
    // The file is made with these bits and never has looser ones. Nothing else makes files at this moment.
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(failed)?;
    let file = SocketFile::made(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(Listener::Unix(listener, file))
}

/// Something to connect to.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// The real address: port 0 has become a port.
    pub(super) fn address(&self) -> Listen {
        match self {
            Self::Tcp(_, address) => Listen::Tcp(*address),
            Self::Unix(_, file) => Listen::Unix(file.path.clone()),
        }
    }

    /// The next client. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<Box<dyn Local>> {
        Ok(match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // Small messages back and forth. A socket without it still works.
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Our socket file. Dropping it removes the file, unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn made(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // A file that stays is replaced by the next proxy.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Listen {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn only_loopback_addresses_are_taken_unless_told_otherwise() {
        for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
            let refused = tcp(open).bind(false, 0o600).unwrap_err();
            assert!(
                matches!(refused, ListenError::Refused { .. }),
                "{open}: {refused}"
            );
        }
        for loopback in ["127.0.0.1:0", "127.8.9.1:0", "localhost:0"] {
            tcp(loopback).bind(false, 0o600).unwrap();
        }
        let bound = tcp("0.0.0.0:0").bind(true, 0o600).unwrap();
        assert!(
            !bound.address().to_string().ends_with(":0"),
            "the real port is told"
        );
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_sentence() {
        for text in [
            "",
            "1312",
            "example.org:1312",
            "127.0.0.1",
            "unix:",
            "localhost:x",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text:?} was taken");
        }
        for (text, mode) in [
            ("0600", Some(0o600)),
            ("660", Some(0o660)),
            ("0800", None),
            ("0400", None),
            ("1777", None),
        ] {
            assert_eq!(parse_mode(text).ok(), mode, "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_file_has_the_asked_permissions_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        for mode in [0o600, 0o660] {
            let listener = Listen::Unix(path.clone()).bind(false, mode).unwrap();
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                mode
            );
            drop(listener);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_when_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        let listen = Listen::Unix(path.clone());
        let first = listen.bind(false, 0o600).unwrap();
        assert!(matches!(
            listen.bind(false, 0o600).unwrap_err(),
            ListenError::Busy { .. }
        ));
        assert!(path.exists(), "the living socket is untouched");
        drop(first);

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(
            path.exists(),
            "std leaves the file behind, as a killed process would"
        );
        drop(listen.bind(false, 0o600).unwrap());

        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            listen.bind(false, 0o600).unwrap_err(),
            ListenError::NotASocket { .. }
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
