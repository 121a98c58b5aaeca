//! Where a test may kill the coordinator: before and after each commit that changes an operation, before each word
//! that is said of it. `hostler_common::failpoint` says how; a build without the feature has none of it.
//!
//! The invariant: what is named here is passed somewhere, or the test of the points fails.

use crate::operation::state::Event;

hostler_common::failpoints! {
    /// An operation is made, and not yet stored.
    SubmitBefore = "submit.before",
    /// It is stored, and nobody was told.
    SubmitAfter = "submit.after",
    /// A client is about to hear that it is SCHEDULED.
    Scheduled = "scheduled.tell",
    /// It is about to be offered.
    OfferBefore = "offer.before",
    /// It was offered.
    OfferAfter = "offer.after",
    /// An agent takes it; that is not stored.
    TakeBefore = "take.before",
    /// That is stored.
    TakeAfter = "take.after",
    /// The holder renews or logs; that is not stored.
    RenewBefore = "renew.before",
    /// That is stored.
    RenewAfter = "renew.after",
    /// A proposal is about to be answered.
    ProposalAnswer = "proposal.answer",
    /// A report of new things is not stored.
    EnrollBefore = "enroll.before",
    /// It is stored.
    EnrollAfter = "enroll.after",
    /// A report was taken.
    Reported = "report.taken",
    /// The end is said; it is not stored.
    EndBefore = "end.before",
    /// It is stored.
    EndAfter = "end.after",
    /// The agent is about to hear that its end counts.
    EndAnswer = "end.answer",
    /// A client is about to hear of the end.
    EndTell = "end.tell",
    /// Somebody cancels; that is not stored.
    CancelBefore = "cancel.before",
    /// That is stored.
    CancelAfter = "cancel.after",
    /// The agent is about to be told of it.
    CancelTell = "cancel.tell",
    /// A lease has run out; that is not stored.
    ExpiryBefore = "expiry.before",
    /// That is stored.
    ExpiryAfter = "expiry.after",
    /// A host is given up; that is not stored.
    AbsenceBefore = "absence.before",
    /// That is stored.
    AbsenceAfter = "absence.after",
    /// A person has looked; that is not stored.
    ResolveBefore = "resolve.before",
    /// That is stored.
    ResolveAfter = "resolve.after",
    /// A client takes a lock; that is not stored.
    HoldBefore = "hold.before",
    /// That is stored.
    HoldAfter = "hold.after",
    /// What a client's lock has run is not stored.
    RanBefore = "ran.before",
    /// It is stored.
    RanAfter = "ran.after",
    /// Old operations are to be removed.
    RetentionBefore = "retention.before",
    /// Some are removed.
    RetentionAfter = "retention.after",
}

/// Before the commit of `event`, and once it is durable.
pub(crate) fn around(event: &Event) -> (Point, Point) {
    match event {
        Event::Proposed(proposal) if proposal.fence.0 == 0 => (Point::TakeBefore, Point::TakeAfter),
        Event::Proposed(_) => (Point::RenewBefore, Point::RenewAfter),
        Event::Finished { .. } => (Point::EndBefore, Point::EndAfter),
        Event::LeaseExpired(_) => (Point::ExpiryBefore, Point::ExpiryAfter),
        Event::LeaseRan { .. } => (Point::RanBefore, Point::RanAfter),
        Event::HostAbsent | Event::HostLost => (Point::AbsenceBefore, Point::AbsenceAfter),
        // Both end what nobody has begun, in one commit.
        Event::CancelRequested { .. } | Event::Barred => (Point::CancelBefore, Point::CancelAfter),
        Event::Resolved => (Point::ResolveBefore, Point::ResolveAfter),
    }
}
