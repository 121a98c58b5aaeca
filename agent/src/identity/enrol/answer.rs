//! The coordinator's answer: looked at as a whole before any of it is kept, then put in its place.
//!
//! The invariant: the certificate is the last thing that is written, and what is written before it changes nothing for an agent that
//! runs.

use std::io::Write;

use hostler_common::rpc::hostler::enrol::v1::EnrolResponse;
use hostler_common::units::UnixMillis;
use hostler_pki::issued::Issued;
use hostler_pki::{EnrolToken, KeyRequest, Subject, TrustBundle};

use super::failpoint::Point;
use super::past::{Note, Past};
use super::told::Told;
use super::{EnrolError, directory_of, place};
use crate::identity::files;
use crate::identity::words::left;

/// An answer that fits its question.
pub(super) struct Answer<'a> {
    token: &'a EnrolToken,
    request: &'a KeyRequest,
    issued: Issued,
    cas: TrustBundle,
}

impl<'a> Answer<'a> {
    /// Whether `response` is for `token` and the key of `request`.
    ///
    /// # Errors
    /// When it is not. Nothing was changed.
    pub(super) fn check(
        token: &'a EnrolToken,
        request: &'a KeyRequest,
        response: &EnrolResponse,
    ) -> Result<Self, EnrolError> {
        let issued = request.complete(&response.certificate_pem)?;
        let host = token.host().clone();
        if issued.identity.subject != (Subject::Agent { host: host.clone() }) {
            return Err(EnrolError::WrongCertificate {
                found: Box::new(issued.identity),
                wanted: host,
            });
        }
        let cas = TrustBundle::parse(&response.ca_pem).map_err(|source| EnrolError::Cas { source })?;
        if !cas.contains(token.ca()) {
            return Err(EnrolError::NotPinned);
        }
        Ok(Self {
            token,
            request,
            issued,
            cas,
        })
    }

    /// Keeps it: the CAs, a note of the token, the certificate.
    ///
    /// # Errors
    /// When something cannot be written, or the certificate not be used. The one of before is still there.
    pub(super) fn put(&self, past: &Past<'_>, told: Told, out: &mut impl Write) -> Result<(), EnrolError> {
        let (files, issued) = (past.files, &self.issued);
        place::make_directory(directory_of(&files.ca))?;
        let kept = self.cas.write(&files.ca);
        kept.map_err(|source| EnrolError::Keep { source })?;
        writeln!(
            out,
            "CA             {} in {}",
            self.cas.roots().len(),
            files.ca.display()
        )?;
        Point::Cas.pass();
        match files::try_out(files, issued) {
            Err(error) if error.begins_at().is_none() => return Err(error.into()),
            Err(_) => writeln!(
                out,
                "clock          this host's is late: the certificate begins at {}, and the agent waits for that",
                issued.not_before
            )?,
            Ok(()) => {}
        }
        past.keep(&Note::of(self.token, self.request, told))?;
        Point::Noted.pass();
        files::write(files, issued)?;
        Point::Certificate.pass();
        writeln!(
            out,
            "certificate    {} until {} ({}) in {}",
            issued.identity,
            issued.not_after,
            left(UnixMillis::now(), issued.not_after),
            files.certificate.display()
        )?;
        Ok(())
    }
}
