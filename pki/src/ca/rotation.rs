//! A new root in place of the old one, without a moment in which anybody is cut off.
//!
//! | stage | `ca.crt` | signs | then |
//! |---|---|---|---|
//! | steady | old | old | `begin` |
//! | begun | old, new | old | everybody gets `ca.crt`, so that everybody trusts both; then `switch` |
//! | switched | new, old | new | everybody gets a new certificate; then `finish` |
//! | steady | new | new | everybody gets `ca.crt`, so that nobody trusts the old one |
//!
//! It never deletes a key or a root: what goes out of use is kept as `ca.key.DATE.ID` and `ca.crt.DATE.ID`. The
//! invariant: the stage is what the files say and nothing else, each step is a list of changes of which every first
//! part leaves a CA that opens, and a step that was cut short is done again by asking for it again.

mod error;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use zeroize::Zeroizing;

pub use error::RotationError;

use super::dir::{self, Root};
use super::error::AuthorityError;
use super::{new_root, sign_failed};
use crate::atomic::{self, PUBLIC_MODE, SECRET_MODE};
use crate::certificate::pem_of;
use crate::files;
use crate::issued::WriteError;
use crate::{trust, verify};

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// One root, and no rotation under way.
    Steady,
    /// `begin` was cut short: there is a new key and no root of it yet.
    Beginning,
    /// Two roots are trusted; the old one signs.
    Begun,
    /// `switch` was cut short: the new root signs, and its key is still called `next.key`.
    Switching,
    /// Two roots are trusted; the new one signs.
    Switched,
}

/// What the files say.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The CA's directory.
    pub dir: PathBuf,
    /// How far it is.
    pub stage: Stage,
    /// Every trusted root; the first signs.
    pub roots: Vec<Root>,
    /// What earlier rotations, or this one, took out of use and kept.
    pub kept: Vec<PathBuf>,
}

/// Whether a step did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// It did.
    Now,
    /// It was done before.
    Before,
}

/// One change of the directory, done whole or not at all.
enum Change {
    Put {
        path: PathBuf,
        content: Zeroizing<String>,
        mode: u32,
    },
    Move {
        from: PathBuf,
        to: PathBuf,
    },
}

impl Change {
    fn roots(dir: &Path, roots: &[&Root]) -> Self {
        let pem: String = roots.iter().map(|root| pem_of(&root.certificate)).collect();
        Self::Put {
            path: dir::certificate_path(dir),
            content: Zeroizing::new(pem),
            mode: PUBLIC_MODE,
        }
    }

    fn apply(&self) -> Result<(), RotationError> {
        match self {
            Self::Put { path, content, mode } => atomic::replace_durably(path, content, *mode),
            Self::Move { from, to } => std::fs::rename(from, to)
                .map_err(|source| WriteError::Write {
                    path: to.clone(),
                    source,
                })
                .and_then(|()| atomic::sync_dir(atomic::directory_of(to))),
        }
        .map_err(|source| RotationError::Write { source })
    }
}

/// How far the rotation of the CA in `dir` is.
///
/// # Errors
/// When the files do not belong together.
pub fn status(dir: &Path) -> Result<Rotation, RotationError> {
    let failed = |source| RotationError::Ca {
        dir: dir.to_owned(),
        source: Box::new(source),
    };
    let path = dir::certificate_path(dir);
    let roots = dir::roots(dir).map_err(failed)?;
    let key = dir::key(dir, &dir::key_path(dir)).map_err(failed)?;
    let next = dir::next_key(dir).map_err(failed)?;
    let place = |key: &KeyPair| roots.iter().position(|root| root.has(key));
    let key_place = place(&key);
    let stage = match (roots.len(), key_place, next.as_ref().map(place)) {
        (1, Some(0), None) => Stage::Steady,
        (1, Some(0), Some(None)) => Stage::Beginning,
        (2, Some(0), Some(Some(1))) => Stage::Begun,
        (2, Some(1), Some(Some(0))) => Stage::Switching,
        (2, Some(0), None) => Stage::Switched,
        (1 | 2, Some(0), Some(_)) => {
            return Err(RotationError::StrayKey {
                path: dir::next_key_path(dir),
            });
        }
        (1 | 2, ..) => {
            return Err(RotationError::StrayKey {
                path: dir::key_path(dir),
            });
        }
        (count, ..) => return Err(RotationError::Roots { path, count }),
    };
    let first = &roots[0].trust_domain;
    if let Some(other) = roots.iter().find(|root| root.trust_domain != *first) {
        return Err(RotationError::TwoDomains {
            path,
            one: first.to_string(),
            other: other.trust_domain.to_string(),
        });
    }
    Ok(Rotation {
        dir: dir.to_owned(),
        stage,
        kept: kept(dir),
        roots,
    })
}

/// Makes a new root that is trusted and does not sign yet.
///
/// # Errors
/// When the rotation before is not finished, or the files cannot be written.
pub fn begin(dir: &Path, lifetime: Duration) -> Result<Did, RotationError> {
    let _alone = alone(dir)?;
    carry_out(&plan_begin(&status(dir)?, lifetime)?)
}

/// Lets the new root sign.
///
/// # Errors
/// When no rotation was begun, or the files cannot be written.
pub fn switch(dir: &Path) -> Result<Did, RotationError> {
    let _alone = alone(dir)?;
    carry_out(&plan_switch(&status(dir)?)?)
}

/// Trusts the old root no more. `drop` names it, by its id.
///
/// # Errors
/// When the new root does not sign yet, the old one is not named, or the files cannot be written.
pub fn finish(dir: &Path, drop: Option<&str>) -> Result<Did, RotationError> {
    let _alone = alone(dir)?;
    carry_out(&plan_finish(&status(dir)?, drop)?)
}

fn carry_out(changes: &[Change]) -> Result<Did, RotationError> {
    changes.iter().try_for_each(Change::apply)?;
    Ok(if changes.is_empty() { Did::Before } else { Did::Now })
}

/// The key first: a root without a key could never sign, and a key without a root is taken up again.
fn plan_begin(now: &Rotation, lifetime: Duration) -> Result<Vec<Change>, RotationError> {
    let failed = |source| RotationError::Ca {
        dir: now.dir.clone(),
        source: Box::new(source),
    };
    let old = &now.roots[0];
    let (key, put) = match now.stage {
        Stage::Begun => return Ok(Vec::new()),
        Stage::Switching | Stage::Switched => return Err(RotationError::FinishFirst),
        Stage::Beginning => (dir::next_key(&now.dir).map_err(failed)?, None),
        Stage::Steady => {
            let fresh = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                .map_err(sign_failed(old.trust_domain.uri()))
                .map_err(failed)?;
            let put = Change::Put {
                path: dir::next_key_path(&now.dir),
                content: Zeroizing::new(fresh.serialize_pem()),
                mode: SECRET_MODE,
            };
            (Some(fresh), Some(put))
        }
    };
    let key = key.ok_or_else(|| RotationError::StrayKey {
        path: dir::next_key_path(&now.dir),
    })?;
    let (_, certificate) = new_root(&key, &old.trust_domain, lifetime).map_err(failed)?;
    let new = Root::read(certificate.der().clone()).map_err(|problem| {
        failed(AuthorityError::NotOurs {
            path: dir::certificate_path(&now.dir),
            problem,
        })
    })?;
    let trust = Change::roots(&now.dir, &[old, &new]);
    Ok(put.into_iter().chain([trust]).collect())
}

/// The order of the roots is what switches; before it the old key is kept, after it the new key gets its name.
fn plan_switch(now: &Rotation) -> Result<Vec<Change>, RotationError> {
    let (old, new) = match now.stage {
        Stage::Switched => return Ok(Vec::new()),
        Stage::Steady | Stage::Beginning => return Err(RotationError::BeginFirst),
        Stage::Begun => (&now.roots[0], &now.roots[1]),
        Stage::Switching => (&now.roots[1], &now.roots[0]),
    };
    let mut changes = Vec::new();
    if !is_kept(now, "ca.key", old) {
        changes.push(Change::Put {
            path: keep_as(now, "ca.key", old),
            content: files::read_text(&dir::key_path(&now.dir))
                .map_err(|source| RotationError::Read { source })?,
            mode: SECRET_MODE,
        });
    }
    if now.stage == Stage::Begun {
        changes.push(Change::roots(&now.dir, &[new, old]));
    }
    changes.push(Change::Move {
        from: dir::next_key_path(&now.dir),
        to: dir::key_path(&now.dir),
    });
    Ok(changes)
}

fn plan_finish(now: &Rotation, drop: Option<&str>) -> Result<Vec<Change>, RotationError> {
    match now.stage {
        Stage::Switched => {}
        // Done: a root that was dropped is there.
        Stage::Steady if now.kept.iter().any(|path| is_named(path, "ca.crt.")) => return Ok(Vec::new()),
        Stage::Steady | Stage::Beginning => return Err(RotationError::BeginFirst),
        Stage::Begun | Stage::Switching => return Err(RotationError::SwitchFirst),
    }
    let (new, old) = (&now.roots[0], &now.roots[1]);
    match drop {
        None => return Err(RotationError::Consent { old: old.id.clone() }),
        Some(named) if !named.eq_ignore_ascii_case(&old.id) => {
            return Err(RotationError::OtherRoot {
                named: named.to_owned(),
                old: old.id.clone(),
                new: new.id.clone(),
            });
        }
        Some(_) => {}
    }
    let mut changes = Vec::new();
    if !is_kept(now, "ca.crt", old) {
        changes.push(Change::Put {
            path: keep_as(now, "ca.crt", old),
            content: Zeroizing::new(pem_of(&old.certificate)),
            mode: PUBLIC_MODE,
        });
    }
    changes.push(Change::roots(&now.dir, &[new]));
    Ok(changes)
}

impl Rotation {
    /// The root that a rotation under way takes out of use.
    pub fn old(&self) -> Option<&Root> {
        match self.stage {
            Stage::Begun => self.roots.first(),
            Stage::Switching | Stage::Switched => self.roots.get(1),
            Stage::Steady | Stage::Beginning => None,
        }
    }

    /// Certificates in the CA's directory that the old root signed and that are still good: some of those that must be
    /// replaced before it is dropped. What lies elsewhere is not seen.
    pub fn signed_by_old(&self) -> Vec<PathBuf> {
        let Some(only) = self.old().and_then(|old| trust::only(&old.certificate)) else {
            return Vec::new();
        };
        let is_one = |path: &PathBuf| {
            files::read_certificates(path)
                .is_ok_and(|chain| verify::check_own(&only, &chain[0], &chain[1..], UnixTime::now()).is_ok())
        };
        let mut found: Vec<PathBuf> = entries(&self.dir)
            .filter(|path| {
                path.extension()
                    .is_some_and(|ending| ending == "crt" || ending == "pem")
            })
            .filter(is_one)
            .collect();
        found.sort();
        found
    }
}

/// Keeps other rotations of this directory away until it is dropped; a process that dies lets go.
fn alone(dir: &Path) -> Result<std::fs::File, RotationError> {
    let failed = |source| RotationError::Write {
        source: WriteError::Write {
            path: dir.to_owned(),
            source,
        },
    };
    let opened = std::fs::File::open(dir).map_err(failed)?;
    match opened.try_lock() {
        Ok(()) => tidy(dir).map(|()| opened),
        Err(std::fs::TryLockError::WouldBlock) => Err(RotationError::Busy { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Removes what a step that died had written and not yet given its name: a key may be in it. Whoever holds the lock is
/// the only one who writes such files.
fn tidy(dir: &Path) -> Result<(), RotationError> {
    let is_ours = |path: &PathBuf| {
        let starts = ["ca.key.", "ca.crt.", "next.key."];
        starts.iter().any(|start| is_named(path, start))
            && path.extension().is_some_and(|ending| ending == "new")
    };
    entries(dir).filter(is_ours).try_for_each(|path| {
        std::fs::remove_file(&path).map_err(|source| RotationError::Write {
            source: WriteError::Write { path, source },
        })
    })
}

fn keep_as(now: &Rotation, name: &str, root: &Root) -> PathBuf {
    let today = OffsetDateTime::now_utc().date();
    now.dir.join(format!("{name}.{today}.{}", root.id))
}

fn is_kept(now: &Rotation, name: &str, root: &Root) -> bool {
    let is_of_root = |path: &PathBuf| path.extension().is_some_and(|ending| *ending == *root.id);
    now.kept
        .iter()
        .any(|path| is_named(path, &format!("{name}.")) && is_of_root(path))
}

/// What was kept: `ca.key.2026-11-22.3f9a12c0` and the like.
fn kept(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(dir)
        .filter(|path| is_named(path, "ca.key.") || is_named(path, "ca.crt."))
        .filter(|path| path.extension().is_some_and(|ending| ending != "new"))
        .collect();
    found.sort();
    found
}

fn is_named(path: &Path, start: &str) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(start))
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests;
