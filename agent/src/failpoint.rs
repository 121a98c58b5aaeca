//! Where a test may kill the agent: around each record of the journal and of the fences, where journals are read and
//! removed, and where an end is said. `hostler_common::failpoint` says how; a build without the feature has none of it.
//!
//! The invariant: what is named here is passed somewhere, or the test of the points fails.

use crate::journal::record::Entry;

hostler_common::failpoints! {
    /// The journals of an earlier process are about to be read.
    StartBefore = "start.before",
    /// They are read.
    StartAfter = "start.after",
    /// A new fence is not recorded.
    FenceBefore = "fence.before",
    /// It is written beside the former, and does not count.
    FenceWritten = "fence.written",
    /// It is recorded.
    FenceAfter = "fence.after",
    /// The journal is not begun.
    BegunBefore = "begun.before",
    /// It is begun.
    BegunAfter = "begun.after",
    /// An operation of an earlier process or lease is not taken.
    TookBefore = "took.before",
    /// It is taken.
    TookAfter = "took.after",
    /// What was decided is not written.
    PlannedBefore = "planned.before",
    /// It is written.
    PlannedAfter = "planned.after",
    /// What was true before a step is known, and not written.
    StartedBefore = "started.before",
    /// It is written, and the step does not run.
    StartedAfter = "started.after",
    /// The step ran, and that is not written.
    DoneBefore = "done.before",
    /// It is written.
    DoneAfter = "done.after",
    /// The step failed, and that is not written.
    FailedBefore = "failed.before",
    /// It is written.
    FailedAfter = "failed.after",
    /// An undo is about to be begun.
    UndoBefore = "undo.before",
    /// It is written, and the undo does not run.
    UndoAfter = "undo.after",
    /// The undo ran, and that is not written.
    UndoneBefore = "undone.before",
    /// It is written.
    UndoneAfter = "undone.after",
    /// The undo failed, and that is not written.
    UndoFailedBefore = "undo_failed.before",
    /// It is written.
    UndoFailedAfter = "undo_failed.after",
    /// The operation has ended, and that is not written.
    EndedBefore = "ended.before",
    /// It is written.
    EndedAfter = "ended.after",
    /// The end is about to be said.
    Finish = "finish.say",
    /// The coordinator knows the end.
    Answered = "finish.answered",
    /// The journal is about to be removed.
    RemoveBefore = "remove.before",
    /// It is removed.
    RemoveAfter = "remove.after",
    /// The journal of what the coordinator gave up is about to be put aside.
    AsideBefore = "aside.before",
    /// It is put aside.
    AsideAfter = "aside.after",
}

/// Before `entry` is written, and once it is durable.
pub(crate) fn around(entry: &Entry) -> (Point, Point) {
    match entry {
        Entry::Begun { .. } => (Point::BegunBefore, Point::BegunAfter),
        Entry::Took { .. } => (Point::TookBefore, Point::TookAfter),
        Entry::Planned { .. } => (Point::PlannedBefore, Point::PlannedAfter),
        Entry::StepStarted { .. } => (Point::StartedBefore, Point::StartedAfter),
        Entry::StepDone { .. } => (Point::DoneBefore, Point::DoneAfter),
        Entry::StepFailed { .. } => (Point::FailedBefore, Point::FailedAfter),
        Entry::UndoStarted { .. } => (Point::UndoBefore, Point::UndoAfter),
        Entry::UndoDone { .. } => (Point::UndoneBefore, Point::UndoneAfter),
        Entry::UndoFailed { .. } => (Point::UndoFailedBefore, Point::UndoFailedAfter),
        Entry::Ended { .. } => (Point::EndedBefore, Point::EndedAfter),
    }
}
