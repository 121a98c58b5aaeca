//! An operation from the request to its end: tells the news, reconnects when the stream breaks, and says how to
//! go on when the person leaves first. It never cancels: operations are the coordinator's.
//!
//! Once an operation's id is known, a broken stream is taken up by watching that id. Asking again would begin
//! a second operation if the first one ended meanwhile: a pool would be expanded twice.

mod story;
mod updates;
mod wish;

use std::time::Duration;

use hostler_common::id::OperationId;
use hostler_common::retry::Waits;
use tokio::time::Instant;

use self::story::{Aim, Story};
use self::updates::{Request, Update, Updates};
use self::wish::Earnest;
pub(crate) use self::wish::{Asked, Wish};
use super::Context;
use crate::connect::Coordinator;
use crate::failure::{Failure, passes_by_itself, why_it_broke};
use crate::output::view::OperationState;

/// When to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detach {
    Never,
    OnceAccepted,
}

/// How long `--detach` waits for the rest of a bulk request: some of it may have no operation to wait for.
const ALL_ACCEPTED_WITHIN: Duration = Duration::from_secs(2);

/// Asks for a change and follows it.
///
/// # Errors
/// When it fails, the coordinator cannot be reached, the time is over, or the person leaves.
pub(crate) async fn change(context: &Context, wish: Wish, detach: Detach) -> Result<(), Failure> {
    wish.asked.check()?;
    let mut story = Story::begin(context, &wish.asked);
    guarded(context, &mut story, async |follower, story| {
        let ended = match wish.asked.hypervisors() {
            [] => follower.ask_of_pool(wish, story, detach).await?,
            _ => follower.ask(wish, story, detach).await?,
        };
        match ended {
            Some(last) => story.end(last),
            None => story.detached(),
        }
    })
    .await
}

/// Follows an operation that exists.
///
/// # Errors
/// As [`change`].
pub(crate) async fn watch(context: &Context, id: OperationId) -> Result<(), Failure> {
    to_the_end(context, id, Aim::Done).await
}

/// Follows an operation that is to stop.
///
/// # Errors
/// As [`change`], and when it completes all the same.
pub(crate) async fn stop(context: &Context, id: OperationId) -> Result<(), Failure> {
    to_the_end(context, id, Aim::Stopped).await
}

async fn to_the_end(context: &Context, id: OperationId, aim: Aim) -> Result<(), Failure> {
    let mut story = Story::of_operation(context, id, aim);
    guarded(context, &mut story, async |follower, story| {
        let last = follower.to_its_end(id, "", story).await?;
        story.end(last)
    })
    .await
}

/// Runs `follow` until it ends, `--timeout` passes, or Ctrl-C.
async fn guarded(
    context: &Context,
    story: &mut Story,
    follow: impl AsyncFnOnce(&Follower, &mut Story) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let limit = context.settings.timeout;
    let following = async {
        let follower = Follower {
            coordinator: Coordinator::connect(&context.settings).await?,
        };
        follow(&follower, story).await
    };
    // Cancel-safe: whichever arm wins, the process is about to end; the operation does not depend on us.
    let ended = tokio::select! {
        ended = following => Some(ended),
        () = after(limit) => None,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|source| Failure::System { what: "wait for Ctrl-C", source })?;
            story.close()?;
            return Err(Failure::Interrupted { watch: story.ids() });
        }
    };
    story.close()?;
    match (ended, limit) {
        (Some(ended), _) => ended,
        (None, limit) if story.has_begun() => Err(Failure::NotEnded {
            after: limit.unwrap_or_default(),
            watch: story.ids(),
        }),
        (None, limit) => Err(Failure::NoAnswer {
            address: context.settings.coordinator.clone(),
            after: limit.unwrap_or_default(),
            storage: false,
        }),
    }
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

struct Follower {
    coordinator: Coordinator,
}

/// How reading a stream came to an end.
enum Read {
    Ended(Update),
    Accepted,
    Broke(String),
}

impl Follower {
    /// Sends the request and reads to the end; `None` when it was left once accepted.
    async fn ask(
        &self,
        mut wish: Wish,
        story: &mut Story,
        detach: Detach,
    ) -> Result<Option<Update>, Failure> {
        let mut request = Request::Change(wish.clone());
        let mut updates = self.open(&request).await?;
        let mut outcomes = Vec::new();
        let mut known = Vec::new();
        loop {
            match self.read(&request, &mut updates, story, detach).await? {
                Read::Ended(last) => {
                    outcomes.push(last);
                    break;
                }
                Read::Accepted => return Ok(None),
                Read::Broke(why) => story.lost(&why),
            }
            let (accepted, rest): (Vec<_>, Vec<_>) = wish
                .asked
                .hypervisors()
                .iter()
                .cloned()
                .partition(|id| story.accepted(id).is_some());
            known.extend(accepted);
            if rest.is_empty() {
                break;
            }
            // What the coordinator has named no operation for. If it took one, asking again attaches to it.
            wish.asked = wish.asked.about(rest);
            request = Request::Change(wish.clone());
            updates = self.open_again(&request, story).await?;
        }
        // One after the other; they go on side by side.
        for hypervisor in known {
            if let Some(id) = story.accepted(&hypervisor) {
                let prefix = story.prefix(&hypervisor);
                outcomes.push(self.to_its_end(id, &prefix, story).await?);
            }
        }
        summed_up(outcomes, story).map(Some)
    }

    /// The same for a pool. It is never asked for twice.
    async fn ask_of_pool(
        &self,
        wish: Wish,
        story: &mut Story,
        detach: Detach,
    ) -> Result<Option<Update>, Failure> {
        let earnest = wish.asked.earnest();
        let request = Request::Change(wish);
        let mut updates = self.open(&request).await?;
        match self.read(&request, &mut updates, story, detach).await? {
            Read::Ended(last) => Ok(Some(last)),
            Read::Accepted => Ok(None),
            Read::Broke(why) => match (story.operation(), earnest) {
                (Some(id), _) => {
                    story.lost(&why);
                    self.to_its_end(id, "", story).await.map(Some)
                }
                (None, Earnest::Done) => Err(Failure::Unnamed { why }),
                (None, Earnest::DryRun) => Err(Failure::Unsaid { why }),
            },
        }
    }

    /// Follows a known operation. `prefix` goes before each message.
    async fn to_its_end(&self, id: OperationId, prefix: &str, story: &mut Story) -> Result<Update, Failure> {
        let request = Request::Watch {
            id,
            prefix: prefix.to_owned(),
        };
        let mut updates = match story.is_reconnecting() {
            false => self.open(&request).await?,
            true => self.open_again(&request, story).await?,
        };
        loop {
            match self.read(&request, &mut updates, story, Detach::Never).await? {
                Read::Ended(last) => return Ok(last),
                Read::Accepted => {}
                Read::Broke(why) => {
                    story.lost(&why);
                    updates = self.open_again(&request, story).await?;
                }
            }
        }
    }

    async fn open(&self, request: &Request) -> Result<Updates, Failure> {
        self.coordinator
            .answer(request.call(), request.open(&self.coordinator))
            .await
    }

    /// Opens a stream once the coordinator is back, however long that takes.
    async fn open_again(&self, request: &Request, story: &mut Story) -> Result<Updates, Failure> {
        let mut waits = Waits::new(Duration::from_millis(300), Duration::from_secs(10));
        loop {
            match self.open(request).await {
                Ok(updates) => {
                    story.found_again();
                    return Ok(updates);
                }
                Err(Failure::Call { status, .. }) if passes_by_itself(&status) => {}
                Err(Failure::NoAnswer { .. }) => {}
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(waits.next_wait()).await;
        }
    }

    async fn read(
        &self,
        request: &Request,
        updates: &mut Updates,
        story: &mut Story,
        detach: Detach,
    ) -> Result<Read, Failure> {
        let mut leave_at: Option<Instant> = None;
        loop {
            let next = match leave_at {
                None => updates.next().await,
                Some(at) => match tokio::time::timeout_at(at, updates.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(Read::Accepted),
                },
            };
            match next {
                Ok(Some(update)) if update.has_ended() => return Ok(Read::Ended(update)),
                Ok(Some(update)) => {
                    story.tell(&update)?;
                    if detach == Detach::OnceAccepted {
                        if story.all_accepted() {
                            return Ok(Read::Accepted);
                        }
                        leave_at.get_or_insert_with(|| Instant::now() + ALL_ACCEPTED_WITHIN);
                    }
                }
                // The first message came after everything was durable, so it stays accepted.
                Ok(None) | Err(_) if leave_at.is_some() => return Ok(Read::Accepted),
                Ok(None) => return Ok(Read::Broke("the stream ended early".into())),
                Err(status) if passes_by_itself(&status) => {
                    return Ok(Read::Broke(why_it_broke(&status)));
                }
                Err(status) => return Err(self.coordinator.failed(request.call(), status)),
            }
        }
    }
}

/// One outcome of several: failed when any is.
fn summed_up(mut outcomes: Vec<Update>, story: &mut Story) -> Result<Update, Failure> {
    if outcomes.len() > 1 {
        for outcome in &outcomes {
            story.tell(outcome)?;
        }
        let failed: Vec<_> = outcomes
            .iter()
            .filter(|it| it.state == OperationState::Failed)
            .collect();
        let (state, message) = match failed.as_slice() {
            [] => (OperationState::Completed, format!("all {} done", outcomes.len())),
            [only] => (OperationState::Failed, only.message.clone()),
            [first, rest @ ..] => (
                OperationState::Failed,
                format!("{}; and {} more", first.message, rest.len()),
            ),
        };
        return Ok(Update::said(state, message));
    }
    // The loop above ends with an outcome or with operations to follow.
    Ok(outcomes
        .pop()
        .unwrap_or_else(|| Update::said(OperationState::Failed, "nothing was asked for".into())))
}
