//! Named points at which a test kills this very process, or stops it: what a crash there leaves is then seen, and
//! not hoped to be hit. Only a build with the feature `failpoints` has them, and says so; in any other build a point
//! is nothing.
//!
//! `HOSTLER_FAILPOINTS` names a folder. Every passing of a point is noted in its file `passed`. Its file `armed` holds
//! one line, `POINT N kill` or `POINT N stop`: at the N-th passing from then on the file becomes `fired` and the
//! process gets SIGKILL or SIGSTOP. So a point can be armed while the process runs, and fires once.
//!
//! It never decides anything for its callers. The invariant: nothing after a point that killed is done by the thread
//! that passed it.

/// The list of a crate's points, as an enum whose names are those of the file `armed`.
#[macro_export]
macro_rules! failpoints {
    ($($(#[$doc:meta])+ $point:ident = $name:literal,)+) => {
        /// A named point.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$doc])+ $point,)+
        }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$point,)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }

            /// The process is here. Does not return when a test wants it killed here.
            #[inline]
            pub fn pass(self) {
                $crate::failpoint::pass(self.name());
            }
        }
    };
}

/// The environment variable that names the folder.
pub const VARIABLE: &str = "HOSTLER_FAILPOINTS";

/// Whether this build has them.
pub const BUILT_IN: bool = cfg!(feature = "failpoints");

/// Says in the log that this build is for tests, when it is.
pub fn announce() {
    if BUILT_IN {
        tracing::warn!("this build has failpoints: it is for tests, and ends itself where {VARIABLE} says");
    }
}

#[cfg(not(feature = "failpoints"))]
#[doc(hidden)]
#[inline]
pub fn pass(_point: &'static str) {}

#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub fn pass(point: &'static str) {
    built_in::pass(point);
}

#[cfg(feature = "failpoints")]
mod built_in {
    use std::fs;
    use std::io::{self, Write as _};
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use nix::sys::signal::{Signal, raise};

    /// Counting is a read and a write of one file, by any thread.
    static TURN: Mutex<()> = Mutex::new(());

    pub(super) fn pass(point: &str) {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| std::env::var_os(super::VARIABLE).map(PathBuf::from));
        let Some(folder) = folder else { return };
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // A folder that is gone belongs to a test that is over.
        let _ = note(folder, point);
        let Ok(Some(signal)) = falls(folder, point) else {
            return;
        };
        let _ = raise(signal);
        if signal == Signal::SIGKILL {
            loop {
                std::thread::park();
            }
        }
    }

    fn note(folder: &Path, point: &str) -> io::Result<()> {
        let mut passed = fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("passed"))?;
        passed.write_all(format!("{point}\n").as_bytes())
    }

    /// The signal that falls here and now, if one does.
    fn falls(folder: &Path, point: &str) -> io::Result<Option<Signal>> {
        let armed = folder.join("armed");
        let line = match fs::read_to_string(&armed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let mut words = line.split_whitespace();
        let (name, passings, action) = (words.next(), words.next(), words.next());
        let signal = match action {
            Some("kill") => Signal::SIGKILL,
            Some("stop") => Signal::SIGSTOP,
            _ => return Err(io::Error::other("neither kill nor stop")),
        };
        let passings: u64 = passings.unwrap_or_default().parse().map_err(io::Error::other)?;
        if name != Some(point) {
            return Ok(None);
        }
        if passings > 1 {
            let action = action.unwrap_or_default();
            fs::write(&armed, format!("{point} {} {action}\n", passings - 1))?;
            return Ok(None);
        }
        fs::rename(&armed, folder.join("fired"))?;
        Ok(Some(signal))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_falls_at_its_passing_and_once() {
            let folder = std::env::temp_dir().join(format!("hostler-failpoint-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("armed"), "here 2 kill\n").unwrap();
            let passes = |point| falls(&folder, point).unwrap();
            assert_eq!(passes("there"), None);
            assert_eq!(passes("here"), None, "the first of two");
            assert_eq!(passes("there"), None);
            assert_eq!(passes("here"), Some(Signal::SIGKILL));
            assert_eq!(passes("here"), None, "it fell already");
            assert!(folder.join("fired").exists());
            fs::write(folder.join("armed"), "here 1 stop\n").unwrap();
            assert_eq!(passes("here"), Some(Signal::SIGSTOP));
            fs::remove_dir_all(&folder).unwrap();
        }
    }
}
