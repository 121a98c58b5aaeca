//! What operations can come to, each as one scene that can be played again and again: every kind of operation from its
//! beginning to its end, and what is met beside that: undone, cancelled, resumed, given up, locked.
//!
//! A scene plays on while programs are killed at armed points, and starts them again. The invariant: it waits for what
//! must come, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::operations::v1::OperationState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::{Call, Seen, Told};
use super::drive::{Driver, SETTLES_WITHIN, SPOILT, cancel_at, spoil};
use super::round::{Moment, Victim};
use super::trap::Trap;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// A create that succeeds.
    Create,
    /// A destroy that succeeds.
    Destroy,
    /// An expand that succeeds.
    Expand,
    /// A shrink that succeeds.
    Shrink,
    /// A backup that succeeds.
    Backup,
    /// A backup is verified.
    Verify,
    /// A file is restored.
    Restore,
    /// A backup is deleted.
    Delete,
    /// A create whose activation fails: all is undone.
    Undone,
    /// A create that is cancelled while it runs.
    Cancelled,
    /// A create that is cancelled while it waits behind a lock.
    Unqueued,
    /// A create that can neither be done nor undone, and a person who has looked.
    Attention,
    /// A create whose agent dies and comes back after its lease.
    Resumed,
    /// A lock that a client takes, keeps and gives back.
    Held,
    /// A create for a host that does not come.
    Absent,
    /// A create whose agent dies and comes back when it was given up.
    GivenUp,
}

impl Scene {
    /// Whether it is one kind of operation from its beginning to its end.
    pub fn is_plain(self) -> bool {
        use Scene::{Backup, Create, Delete, Destroy, Expand, Restore, Shrink, Verify};
        matches!(
            self,
            Create | Destroy | Expand | Shrink | Backup | Verify | Restore | Delete
        )
    }
}

impl Driver {
    /// Brings the world to where `scene` can begin.
    pub(super) async fn prepare(&mut self, scene: Scene) -> anyhow::Result<()> {
        let site = &self.world.site;
        for name in ["broken-start", "broken-stop"] {
            // Mostly it is not there.
            let _ = std::fs::remove_file(site.path(name));
        }
        site.write("parts", "1");
        self.attention_is_due = false;
        let active = site.path("active").exists();
        let members = self.world.pool.as_ref().map_or(0, |pool| pool.members().len());
        let kept = self.look().pool.map_or(0, |pool| pool.backups.len());
        match scene {
            Scene::Destroy if !active => self.undisturbed(Call::Create).await?,
            Scene::Expand if members == 3 => self.undisturbed(Call::Shrink(600 << 20)).await?,
            Scene::Shrink if members == 1 => self.undisturbed(Call::Expand(300 << 20)).await?,
            Scene::Verify | Scene::Restore if kept == 0 => self.undisturbed(Call::Backup).await?,
            Scene::Delete => {
                for _ in kept..2 {
                    self.undisturbed(Call::Backup).await?;
                }
            }
            Scene::Destroy
            | Scene::Expand
            | Scene::Shrink
            | Scene::Backup
            | Scene::Verify
            | Scene::Restore => {}
            _ if active => self.undisturbed(Call::Destroy).await?,
            _ => {}
        }
        if scene == Scene::Restore {
            spoil(self.world.pool.as_ref().context("a world with a pool")?);
        }
        Ok(())
    }

    /// Plays `scene` to the end of its operations, reviving what is killed at its point.
    pub(super) async fn play(&mut self, scene: Scene) -> anyhow::Result<Vec<Told>> {
        let site = &self.world.site;
        match scene {
            Scene::Create => self.call(Call::Create).await,
            Scene::Destroy => self.call(Call::Destroy).await,
            Scene::Expand => self.call(Call::Expand(60 << 20)).await,
            Scene::Shrink => self.call(Call::Shrink(260 << 20)).await,
            Scene::Backup => self.call(Call::Backup).await,
            Scene::Verify => self.call(Call::Verify).await,
            Scene::Restore => self.call(Call::Restore(SPOILT.to_owned())).await,
            Scene::Delete => {
                let pool = self.look().pool.context("a world with a pool")?;
                let backup = pool.backups.first().context("a backup")?.clone();
                self.call(Call::Delete(backup)).await
            }
            Scene::Undone => {
                site.write("broken-start", "");
                self.call(Call::Create).await
            }
            Scene::Cancelled => {
                site.write("parts", "30");
                let (client, seen) = self.begin_call(Call::Create);
                let cancel = cancel_at(self.world.client.clone(), Moment::Line(4, Duration::ZERO), seen);
                let cancel = tokio::spawn(cancel);
                let told = self.gather(vec![client]).await?;
                cancel.abort();
                Ok(told)
            }
            Scene::Unqueued => self.unqueued().await,
            Scene::Attention => self.attention().await,
            Scene::Resumed => {
                site.write("parts", "10");
                let (client, seen) = self.begin_call(Call::Create);
                self.abandon(&seen).await?;
                let expired = count(&self.world.coordinator_trap, "expiry.after");
                self.until("the lease runs out", |driver| {
                    seen.borrow().over || count(&driver.world.coordinator_trap, "expiry.after") > expired
                })
                .await?;
                self.world.start();
                self.gather(vec![client]).await
            }
            Scene::Held => self.held().await,
            Scene::Absent => {
                self.world
                    .kill(Victim::Agent, "before an operation", &mut self.tally);
                let (client, _) = self.begin_call(Call::Create);
                let told = self.gather(vec![client]).await?;
                self.world.start();
                Ok(told)
            }
            Scene::GivenUp => {
                self.attention_is_due = true;
                site.write("parts", "10");
                let (client, seen) = self.begin_call(Call::Create);
                self.abandon(&seen).await?;
                let told = self.gather(vec![client]).await?;
                let aside = count(&self.world.agent_trap, "aside.after");
                let acknowledged = seen.borrow().id.is_some();
                self.world.start();
                self.until("the journal is put aside", |driver| {
                    !acknowledged || count(&driver.world.agent_trap, "aside.after") > aside
                })
                .await?;
                Ok(told)
            }
        }
    }

    async fn call(&mut self, call: Call) -> anyhow::Result<Vec<Told>> {
        let (client, _) = self.begin_call(call);
        self.gather(vec![client]).await
    }

    fn begin_call(&self, call: Call) -> (JoinHandle<Told>, watch::Receiver<Seen>) {
        let (tell, seen) = watch::channel(Seen::default());
        let client = tokio::spawn(self.world.client.clone().follow(call, tell));
        (client, seen)
    }

    /// Kills the agent once the activation runs.
    async fn abandon(&mut self, seen: &watch::Receiver<Seen>) -> anyhow::Result<()> {
        let turns = self.world.site.path("turns");
        let length = move || std::fs::metadata(&turns).map_or(0, |file| file.len());
        let before = length();
        self.until("the activation begins", |_| {
            seen.borrow().over || length() > before
        })
        .await?;
        self.world
            .kill(Victim::Agent, "in an activation", &mut self.tally);
        Ok(())
    }

    async fn unqueued(&mut self) -> anyhow::Result<Vec<Told>> {
        let token = format!("token-{}", self.tally.kills);
        let hold = self.hold(&token, 60);
        let hold = self.having(hold).await?;
        let (client, seen) = self.begin_call(Call::Create);
        let cancel = cancel_at(self.world.client.clone(), Moment::Line(1, Duration::ZERO), seen);
        let cancel = tokio::spawn(cancel);
        let mut told = self.gather(vec![client]).await?;
        cancel.abort();
        let release = self.hold(&token, 0);
        self.having(release).await?;
        told.extend(hold.map(released));
        Ok(told)
    }

    async fn held(&mut self) -> anyhow::Result<Vec<Told>> {
        let token = format!("token-{}", self.tally.kills);
        let hold = self.hold(&token, 20);
        let hold = self.having(hold).await?;
        let ran = count(&self.world.coordinator_trap, "ran.after");
        self.until("what it has run is remembered", |driver| {
            count(&driver.world.coordinator_trap, "ran.after") > ran
        })
        .await?;
        let release = self.hold(&token, 0);
        self.having(release).await?;
        Ok(hold.map(released).into_iter().collect())
    }

    async fn attention(&mut self) -> anyhow::Result<Vec<Told>> {
        self.attention_is_due = true;
        for name in ["broken-start", "broken-stop"] {
            self.world.site.write(name, "");
        }
        let told = self.call(Call::Create).await?;
        let Some(id) = told.iter().find_map(|told| told.id.clone()) else {
            return Ok(told);
        };
        // A resolve whose answer is lost may have been taken.
        let client = self.world.client.clone();
        let resolving = tokio::spawn(async move {
            loop {
                client.resolve(id.clone()).await;
                let history = client.history().await.unwrap_or_default();
                let kept = history.iter().find(|operation| operation.id == id);
                if kept.is_some_and(|operation| !operation.needs_attention) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        self.having(resolving).await?;
        Ok(told)
    }

    fn hold(&self, token: &str, seconds: u32) -> JoinHandle<Option<fleet::Operation>> {
        let (client, token) = (self.world.client.clone(), token.to_owned());
        tokio::spawn(async move { client.hold(&token, seconds).await })
    }

    async fn gather(&mut self, clients: Vec<JoinHandle<Told>>) -> anyhow::Result<Vec<Told>> {
        let mut told = Vec::new();
        for client in clients {
            told.push(self.having(client).await?);
        }
        if let Some(revived) = self.revived.take() {
            self.tally.recovered(revived.elapsed(), &self.story);
        }
        Ok(told)
    }

    /// What the task comes to, while programs are revived.
    async fn having<T>(&mut self, task: JoinHandle<T>) -> anyhow::Result<T> {
        self.until("a client hears the end", |_| task.is_finished())
            .await?;
        Ok(task.await?)
    }

    /// Waits until it is so, and revives programs meanwhile.
    pub(super) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !is_so(self) {
            if self.world.revive(&mut self.tally) {
                self.revived = Some(Instant::now());
            }
            if begun.elapsed() > SETTLES_WITHIN {
                let history = self.world.client.history().await.unwrap_or_default();
                let unended = history.iter().filter(|operation| operation.ended.is_none());
                bail!(
                    "never happened: {what}; unended: {:?}",
                    unended.collect::<Vec<_>>()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// The client's lock as the invariants judge it.
fn released(operation: fleet::Operation) -> Told {
    Told {
        call: Call::Hold,
        id: Some(operation.id),
        end: Some(OperationState::Completed),
        last: "released".to_owned(),
        lost: false,
    }
}

fn count(trap: &Trap, point: &str) -> u64 {
    trap.passed().get(point).copied().unwrap_or_default()
}
