//! Credentials that follow their files.
//!
//! It has no timer and no task; its owner asks it now and then. The invariant: good credentials are only ever replaced by
//! good ones, so that files which are half replaced, or wrong, cost nothing but a sentence.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::files::{Credentials, CredentialsError, TlsFiles};

/// What the file system says about some files without opening them. Two that are equal: nobody has touched the files
/// in between, as far as inode, length and times tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesStamp(Vec<Option<[i64; 7]>>);

impl FilesStamp {
    /// Of these files; one that is missing has a stamp as well. A few microseconds a file.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let stamp = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            // Only compared, so a number that does not fit may wrap.
            let bits = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
            Some([
                bits(found.dev()),
                bits(found.ino()),
                bits(found.len()),
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec(),
            ])
        };
        Self(paths.into_iter().map(stamp).collect())
    }
}

impl TlsFiles {
    /// The stamp of the three files.
    pub fn stamp(&self) -> FilesStamp {
        FilesStamp::of([&*self.ca, &*self.certificate, &*self.key])
    }
}

/// Credentials, and the files they come from.
#[derive(Debug)]
pub struct Reloaded {
    files: TlsFiles,
    current: Credentials,
    /// Of the files when they were last tried.
    tried: FilesStamp,
    is_good: bool,
}

impl Reloaded {
    /// Loads the files.
    ///
    /// # Errors
    /// As [`Credentials::load`].
    pub fn load(files: TlsFiles) -> Result<Self, CredentialsError> {
        // Before the files: a change in between is then seen the next time.
        let tried = files.stamp();
        let current = Credentials::load(&files)?;
        Ok(Self {
            files,
            current,
            tried,
            is_good: true,
        })
    }

    /// The newest good credentials.
    pub fn current(&self) -> &Credentials {
        &self.current
    }

    /// Where they come from.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Loads the files again when they have changed, or the time has made other roots of them: the new credentials, or `None`
    /// when there are none. Cheap when nothing has changed.
    ///
    /// # Errors
    /// Once for each change that cannot be taken. The credentials from before stay, and bad files are tried again at
    /// each call without a word: what is not valid yet becomes valid without a change.
    pub fn poll(&mut self) -> Result<Option<&Credentials>, CredentialsError> {
        let stamp = self.files.stamp();
        let is_new = stamp != self.tried;
        if self.is_good && !is_new && !self.current.has_other_roots_now() {
            return Ok(None);
        }
        let loaded = Credentials::load(&self.files);
        self.tried = stamp;
        self.is_good = loaded.is_ok();
        match loaded {
            Ok(credentials) => {
                self.current = credentials;
                Ok(Some(&self.current))
            }
            Err(error) if is_new => Err(error),
            Err(_) => Ok(None),
        }
    }
}
