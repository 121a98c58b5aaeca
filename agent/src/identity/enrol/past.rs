//! What this host has of earlier enrolments: a certificate, a key that still waits for one, and a note of the last token.
//!
//! It asks nobody. The invariant: a token counts as done only when the certificate that it gave, or one that followed by renewal, is there
//! and good.

use std::path::PathBuf;

use hostler_common::id::HostName;
use hostler_common::units::UnixMillis;
use hostler_pki::request::key_digest;
use hostler_pki::{EnrolToken, Fingerprint, KeyRequest, KeyRequestError, TlsFiles};
use serde::{Deserialize, Serialize};

use super::told::Told;
use super::{EnrolError, directory_of, place};
use crate::identity::files::Own;

/// The key that no certificate has been taken for yet, beside the certificate.
const PENDING: &str = "enrol.key";
/// Which token this host was last enrolled with, beside the certificate.
const NOTE: &str = "enrolled.json";

/// Which token gave this host its certificate, and what else came with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The token's id. It is no secret.
    token: String,
    /// The digest of the public key.
    key: String,
    /// Where the agent connects.
    pub(super) told: Told,
}

impl Note {
    pub(super) fn of(token: &EnrolToken, request: &KeyRequest, told: Told) -> Self {
        Self {
            token: token.id().to_string(),
            key: digest(request),
            told,
        }
    }
}

fn digest(request: &KeyRequest) -> String {
    // A request of our own is one.
    key_digest(request.csr_der()).map_or_else(
        |_| String::new(),
        |digest| Fingerprint::from_bytes(digest).to_string(),
    )
}

/// How far this host is with a token.
#[derive(Debug)]
pub(super) enum Standing {
    /// It has nothing of it yet. There may be another certificate: in words.
    Open(Option<String>),
    /// It has the certificate that the token gave. A run may have died after that.
    Done { own: Own, told: Told, ended: Ended },
}

/// How the run ended that put the certificate in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself.
    Orderly,
    /// It died: nobody knows whether the agent runs with the new configuration.
    Early,
}

/// The files of earlier enrolments.
#[derive(Debug)]
pub(super) struct Past<'a> {
    /// Where certificate, key and CA belong.
    pub(super) files: &'a TlsFiles,
    /// Where the key waits.
    pub(super) pending: PathBuf,
    note: PathBuf,
}

impl<'a> Past<'a> {
    pub(super) fn of(files: &'a TlsFiles) -> Self {
        let beside = |name| directory_of(&files.certificate).join(name);
        Self {
            files,
            pending: beside(PENDING),
            note: beside(NOTE),
        }
    }

    /// How far this host is with `token`.
    ///
    /// # Errors
    /// When it is another host, with a certificate that is good, or the key that waits cannot be read.
    pub(super) fn standing(&self, token: &EnrolToken) -> Result<Standing, EnrolError> {
        let Some(own) = Own::read(self.files).ok().or_else(|| Own::of_later(self.files)) else {
            // None, or one that is worth nothing.
            return Ok(Standing::Open(None));
        };
        if own.is_expired(UnixMillis::now()) {
            let words = format!("the certificate of {} expired at {}", own.identity, own.not_after);
            return Ok(Standing::Open(Some(words)));
        }
        self.demand(&own, token.host())?;
        match self.note().filter(|note| note.token == token.id().to_string()) {
            Some(note) => self.noted(own, note),
            None => Ok(replaced(&own)),
        }
    }

    fn demand(&self, own: &Own, wanted: &HostName) -> Result<(), EnrolError> {
        match own.identity.subject.name().as_str() == wanted.as_str() {
            true => Ok(()),
            false => Err(EnrolError::OtherHost {
                found: Box::new(own.identity.clone()),
                until: own.not_after,
                wanted: wanted.clone(),
                path: self.files.certificate.clone(),
            }),
        }
    }

    /// The note is written before the certificate, so that it may be all that there is.
    fn noted(&self, own: Own, note: Note) -> Result<Standing, EnrolError> {
        let done = |ended| Standing::Done {
            own: own.clone(),
            told: note.told.clone(),
            ended,
        };
        let Some(request) = self.waiting()? else {
            return Ok(done(Ended::Orderly));
        };
        // One that waits for the answer to another token says nothing about this one.
        if digest(&request) != note.key {
            return Ok(done(Ended::Orderly));
        }
        let certificate = std::fs::read_to_string(&self.files.certificate).unwrap_or_default();
        Ok(match request.complete(&certificate) {
            Ok(_) => done(Ended::Early),
            Err(_) => replaced(&own),
        })
    }

    fn waiting(&self) -> Result<Option<KeyRequest>, KeyRequestError> {
        match self.is_waited_for() {
            true => KeyRequest::pending(&self.pending).map(Some),
            false => Ok(None),
        }
    }

    /// Whether a key waits for its certificate.
    pub(super) fn is_waited_for(&self) -> bool {
        self.pending.symlink_metadata().is_ok()
    }

    /// None as well when it says nothing that is understood: it is only needed to repeat a command.
    fn note(&self) -> Option<Note> {
        serde_json::from_str(&std::fs::read_to_string(&self.note).ok()?).ok()
    }

    /// Keeps `note`.
    pub(super) fn keep(&self, note: &Note) -> Result<(), EnrolError> {
        // Strings in a struct always serialise.
        let text = serde_json::to_string_pretty(note).expect("notes serialise");
        place::put(&self.note, &format!("{text}\n")).map_err(|source| EnrolError::Note {
            path: self.note.clone(),
            source,
        })
    }

    /// The key that waited for the answer to `token` has its certificate. One that waits for another's stays.
    pub(super) fn forget_key_of(&self, token: &EnrolToken) {
        let note = self.note().filter(|note| note.token == token.id().to_string());
        if let (Some(note), Ok(Some(request))) = (note, self.waiting())
            && digest(&request) == note.key
        {
            self.forget_key();
        }
    }

    /// No key waits any more.
    pub(super) fn forget_key(&self) {
        // One that stays is of no use to anybody else, and goes with the next enrolment.
        let _ = place::remove(&self.pending);
    }
}

fn replaced(own: &Own) -> Standing {
    Standing::Open(Some(format!(
        "{} has a certificate until {}, which is replaced",
        own.identity, own.not_after
    )))
}
