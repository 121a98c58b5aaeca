//! An operation from the request to its end: tells the news, reconnects when the stream breaks, and says how to
//! go on when the person leaves first. It never cancels: operations are the coordinator's.
//!
//! Once an operation's id is known, a broken stream is taken up by watching that id. Asking again would begin
//! a second operation if the first one failed meanwhile.

mod story;
mod updates;

use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::id::OperationId;
use hostler_common::retry::Waits;

use self::story::Story;
pub(crate) use self::updates::Wish;
use self::updates::{Request, Update, Updates};
use super::Context;
use crate::connect::Coordinator;
use crate::failure::{Failure, connection_broke};
use crate::output::view::OperationState;

/// When to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detach {
    Never,
    OnceAccepted,
}

/// How long to wait for the ids of a bulk request that is accepted in several messages.
const MORE_IDS_WITHIN: Duration = Duration::from_secs(2);

/// Asks for a change and follows it.
///
/// # Errors
/// When it fails, the coordinator cannot be reached, the time is over, or the person leaves.
pub(crate) async fn change(context: &Context, wish: Wish, detach: Detach) -> Result<(), Failure> {
    let what = wish.words();
    let wanted = wish.ids.len();
    let mut story = Story::begin(context, what, wanted);
    guarded(context, &mut story, async |follower, story| {
        let last = match follower.ask(&Request::Change(wish), story, detach).await? {
            Some(last) => last,
            None => return story.detached(),
        };
        story.end(last)
    })
    .await
}

/// Follows an operation that exists.
///
/// # Errors
/// As [`change`].
pub(crate) async fn watch(context: &Context, id: OperationId) -> Result<(), Failure> {
    let mut story = Story::of_operation(context, id);
    guarded(context, &mut story, async |follower, story| {
        let last = follower.to_its_end(id, story).await?;
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
        (None, limit) => Err(Failure::NotEnded {
            after: limit.unwrap_or_default(),
            watch: story.ids(),
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
        request: &Request,
        story: &mut Story,
        detach: Detach,
    ) -> Result<Option<Update>, Failure> {
        let mut updates = self.open(request).await?;
        loop {
            match self.read(request, &mut updates, story, detach).await? {
                Read::Ended(last) => return Ok(Some(last)),
                Read::Accepted => return Ok(None),
                Read::Broke(why) => story.lost(&why),
            }
            if let Some(ids) = story.known_ids() {
                return self.each_to_its_end(ids, story).await.map(Some);
            }
            // Not accepted, as far as we know. If it was, asking again attaches to it.
            updates = self.open_again(request, story).await?;
        }
    }

    /// Follows known operations, one after the other; they go on side by side. The last failure wins.
    async fn each_to_its_end(&self, ids: Vec<OperationId>, story: &mut Story) -> Result<Update, Failure> {
        let mut outcome: Option<Update> = None;
        let many = ids.len() > 1;
        for id in ids {
            let last = self.to_its_end(id, story).await?;
            if many {
                story.tell(&last)?;
            }
            if outcome
                .as_ref()
                .is_none_or(|known| known.state != OperationState::Failed)
            {
                outcome = Some(last);
            }
        }
        outcome.ok_or(Failure::NotEnded {
            after: Duration::ZERO,
            watch: story.ids(),
        })
    }

    async fn to_its_end(&self, id: OperationId, story: &mut Story) -> Result<Update, Failure> {
        let request = Request::Watch(id);
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
                Err(Failure::Call { status, .. }) if connection_broke(&status) => {}
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
        let mut accepted = false;
        loop {
            let next = if accepted {
                // What is accepted stays so; waiting is only for the ids.
                match tokio::time::timeout(MORE_IDS_WITHIN, updates.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(Read::Accepted),
                }
            } else {
                updates.next().await
            };
            match next {
                Ok(Some(update)) if update.has_ended() => return Ok(Read::Ended(update)),
                Ok(Some(update)) => {
                    story.tell(&update)?;
                    if detach == Detach::OnceAccepted {
                        if update.state != OperationState::Scheduled || story.known_ids().is_some() {
                            return Ok(Read::Accepted);
                        }
                        accepted = true;
                    }
                }
                Ok(None) if accepted => return Ok(Read::Accepted),
                Ok(None) => return Ok(Read::Broke("the stream ended early".into())),
                Err(_) if accepted => return Ok(Read::Accepted),
                Err(status) if connection_broke(&status) => {
                    return Ok(Read::Broke(
                        hostler_pki::explain(&status).unwrap_or_else(|| Chain(&status).to_string()),
                    ));
                }
                Err(status) => return Err(self.coordinator.failed(request.call(), status)),
            }
        }
    }
}
