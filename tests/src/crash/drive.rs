//! Drives one world through rounds until enough was killed: calls, strikes, lets things settle, and holds what is
//! then true against the invariants.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::{Call, Client, Seen, Told};
use super::dice::Dice;
use super::invariants::{self, Evidence};
use super::round::{Beside, Blow, Has, How, Lean, Moment, Round, Victim, Work};
use super::tally::Tally;
use super::truth::{self, Truth};
use super::world::{Setting, World};
use crate::pool::LoopPool;
use crate::progress::Progress;
use hostler_common::rpc::hostler::fleet::v1 as fleet;

/// From the last blow until everything has settled: the lease, the waits of whoever dials again, and the operation
/// itself, on a machine that does much else.
pub(super) const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The file that restores bring back.
pub(super) const SPOILT: &str = "desktops/file-1";

/// What is to be done to one world.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// Where its dice begin.
    pub seed: u64,
    /// It ends after the round in which so many kills were reached.
    pub kills: u64,
    /// What it has.
    pub has: Has,
}

/// Runs a course. Each kill counts in `progress`.
///
/// # Errors
/// When an invariant is broken: with the seed, everything that was done, and the ends of the logs.
pub async fn run(course: Course, progress: Arc<Progress>) -> anyhow::Result<Tally> {
    let mut driver = Driver::begin(course, World::begin(Setting::random(course.has))?);
    match driver.whole(&progress).await {
        Ok(()) => Ok(driver.tally),
        Err(error) => bail!(driver.obituary(&error)),
    }
}

pub(super) struct Driver {
    course: Course,
    dice: Dice,
    pub(super) world: World,
    pub(super) tally: Tally,
    /// Every operation that is known.
    known: BTreeSet<String>,
    /// Every id that a client was ever told.
    acknowledged: BTreeSet<String>,
    /// What is done now makes a person needed.
    pub(super) attention_is_due: bool,
    /// When a program was started again that a point had killed.
    pub(super) revived: Option<Instant>,
    pub(super) story: String,
}

impl Driver {
    pub(super) fn begin(course: Course, world: World) -> Self {
        Self {
            course,
            dice: Dice::new(course.seed),
            world,
            tally: Tally::default(),
            known: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            attention_is_due: false,
            revived: None,
            story: String::new(),
        }
    }

    async fn whole(&mut self, progress: &Progress) -> anyhow::Result<()> {
        self.settle(None, Vec::new()).await?;
        if self.course.has == Has::HypervisorAndPool {
            // Something to restore from.
            self.undisturbed(Call::Backup).await?;
        }
        while self.tally.kills < self.course.kills {
            let round = Round::draw(&mut self.dice, self.course.has);
            let before = self.tally.kills;
            self.round(&round).await?;
            progress.add(self.tally.kills - before);
        }
        self.last_look()
    }

    /// What only a whole read of everything tells.
    pub(super) fn last_look(&mut self) -> anyhow::Result<()> {
        if let Some(pool) = &self.world.pool {
            pool.scrub();
            pool.restic(&["check", "--read-data", "--no-lock"]);
            self.tally.count("invariants held", "the pool scrubs clean");
            self.tally
                .count("invariants held", "the whole repository can be read");
        }
        Ok(())
    }

    pub(super) async fn undisturbed(&mut self, call: Call) -> anyhow::Result<()> {
        let _ = writeln!(self.story, "{call:?}, undisturbed");
        let before = self.look();
        let told = vec![
            self.world
                .client
                .clone()
                .follow(call, watch::Sender::default())
                .await,
        ];
        self.settle(Some(before), told).await.map(drop)
    }

    async fn round(&mut self, round: &Round) -> anyhow::Result<()> {
        let calls = self.calls(round);
        let number = self.tally.of("rounds", "rounds") + 1;
        let _ = writeln!(self.story, "round {number}: {calls:?} for {round}");
        self.tally.count("rounds", "rounds");
        self.world.site.write("parts", &round.parts.to_string());
        let before = self.look();
        let mut clients: Vec<JoinHandle<Told>> = Vec::new();
        let mut seen = Vec::new();
        for call in calls {
            let (tell, told) = watch::channel(Seen::default());
            seen.push(told);
            clients.push(tokio::spawn(self.world.client.clone().follow(call, tell)));
        }
        let work = seen.first().context("a round has a call")?.clone();
        let cancel = round
            .cancel
            .map(|moment| tokio::spawn(cancel_at(self.world.client.clone(), moment, work.clone())));
        let (idle, during): (Vec<&Blow>, Vec<&Blow>) =
            round.blows.iter().partition(|blow| blow.at == Moment::Idle);
        for blow in during {
            let at = until(blow.at, work.clone()).await;
            self.strike(blow, at).await;
        }
        let clients = async {
            let mut told = Vec::new();
            for client in &mut clients {
                told.push(client.await?);
            }
            anyhow::Ok(told)
        };
        let told = tokio::time::timeout(SETTLES_WITHIN, clients).await;
        let Ok(told) = told else {
            let history = self.world.client.history().await.unwrap_or_default();
            let unended = history.iter().filter(|operation| operation.ended.is_none());
            bail!(
                "a client never heard of the end: {:?}",
                unended.collect::<Vec<_>>()
            );
        };
        if let Some(cancel) = cancel {
            cancel.abort();
        }
        self.settle(Some(before), told?).await?;
        for blow in idle {
            let before = self.look();
            self.strike(blow, "between operations").await;
            self.settle(Some(before), Vec::new()).await?;
        }
        Ok(())
    }

    async fn strike(&mut self, blow: &Blow, at: &'static str) {
        if let How::Kill { .. } = blow.how {
            let _ = writeln!(self.story, "  {blow} ({at})");
        }
        self.world.strike(blow, at, &mut self.tally).await;
    }

    /// What the round's work means as things stand.
    fn calls(&mut self, round: &Round) -> Vec<Call> {
        let toggle = match self.world.site.path("active").exists() {
            true => Call::Destroy,
            false => Call::Create,
        };
        let work = match (round.work, &self.world.pool) {
            (Work::Toggle, _) | (_, None) => toggle.clone(),
            (Work::Resize { lean, mebibytes }, Some(pool)) => {
                let amount = mebibytes << 20;
                match (pool.members().len(), lean) {
                    (1, _) | (2, Lean::Grow) => Call::Expand(amount),
                    // At least one whole device of those that come and go.
                    (2, Lean::Shrink) | (_, _) => Call::Shrink(amount + (200 << 20)),
                }
            }
            (Work::Backup, Some(_)) => Call::Backup,
            (Work::Restore, Some(pool)) => {
                spoil(pool);
                Call::Restore(SPOILT.to_owned())
            }
            (Work::Verify, Some(_)) => Call::Verify,
            (Work::Delete, Some(_)) => {
                let kept = self.look().pool.map(|pool| pool.backups).unwrap_or_default();
                match kept.first() {
                    Some(backup) if kept.len() > 1 => Call::Delete(backup.clone()),
                    _ => Call::Backup,
                }
            }
        };
        let mut calls = vec![work];
        if round.beside == Beside::Toggle {
            calls.push(toggle);
        }
        calls
    }

    pub(super) fn look(&self) -> Truth {
        Truth::of(&self.world.site, self.world.pool.as_ref())
    }

    /// Waits until every invariant holds, and counts how things ended. Answers with the operations since the last time.
    pub(super) async fn settle(
        &mut self,
        before: Option<Truth>,
        told: Vec<Told>,
    ) -> anyhow::Result<Vec<fleet::Operation>> {
        let begun = Instant::now();
        self.acknowledged
            .extend(told.iter().filter_map(|told| told.id.clone()));
        let mut last = String::new();
        let evidence = loop {
            self.world.revive(&mut self.tally);
            last = match self.evidence(before.clone(), told.clone()).await {
                Err(missing) => missing.to_owned(),
                Ok(evidence) => match broken(&evidence) {
                    None => break evidence,
                    Some(broken) => broken,
                },
            };
            if begun.elapsed() >= SETTLES_WITHIN {
                bail!("after {SETTLES_WITHIN:?} still: {last}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        self.tally.settled(begun.elapsed(), last);
        for (name, _) in invariants::ALL {
            self.tally.count("invariants held", name);
        }
        for operation in &evidence.made {
            let end = end(operation);
            let _ = writeln!(
                self.story,
                "  {} {}: {end} after {} attempts: {}",
                operation.kind, operation.id, operation.attempts, operation.message
            );
            self.tally.count("operations", operation.kind.clone());
            self.tally.count("outcomes", end);
            self.tally
                .count("how often operations were taken", operation.attempts.to_string());
        }
        for told in &evidence.told {
            if told.id.is_none() {
                self.tally.count("clients", "cut off before they were told an id");
            }
        }
        self.known.extend(evidence.made.iter().map(|it| it.id.clone()));
        self.repair(&evidence).await?;
        Ok(evidence.made)
    }

    async fn evidence(&mut self, before: Option<Truth>, told: Vec<Told>) -> Result<Evidence, &'static str> {
        let client = self.world.client.clone();
        let history = client.history().await.ok_or("the history is not answered")?;
        if history.iter().any(|operation| operation.ended.is_none()) && !self.world.fallen().is_empty() {
            return Err("a program ended by itself while an operation ran");
        }
        let hypervisor = client.hypervisor().await.ok_or("hv1 is not listed")?;
        let pool = match &self.world.pool {
            Some(_) => Some(client.pool().await.ok_or("no pool is listed")?),
            None => None,
        };
        let ids: BTreeSet<_> = history.iter().map(|it| it.id.clone()).collect();
        let made = history.iter().filter(|it| !self.known.contains(&it.id));
        let site = &self.world.site;
        let after = self.look();
        Ok(Evidence {
            made: made.cloned().collect(),
            lost: self.acknowledged.difference(&ids).cloned().collect(),
            before: before.unwrap_or_else(|| after.clone()),
            files: self.world.files.clone(),
            told,
            hypervisor,
            pool,
            overlaps: std::fs::read_to_string(site.path("overlaps")).unwrap_or_default(),
            leftovers: truth::leftovers(site, self.world.pool.as_ref(), &self.world.pids()),
            damaged: truth::damaged_journals(site),
            panics: panics(&self.world),
            fallen: self.world.fallen(),
            attention_is_due: self.attention_is_due,
            history,
            after,
        })
    }

    /// A person's part, and what a restore that was not made left spoilt.
    async fn repair(&mut self, evidence: &Evidence) -> anyhow::Result<()> {
        let spoilt = &evidence.after.pool;
        if let (Some(pool), Some(truth)) = (&self.world.pool, spoilt)
            && truth.files != self.world.files
        {
            std::fs::copy(pool.path("original"), pool.mount_point().join(SPOILT))?;
            let files = pool.checksums();
            if files != self.world.files {
                bail!("a file differs that no restore was about");
            }
        }
        let attention: Vec<_> = evidence.made.iter().filter(|it| it.needs_attention).collect();
        for operation in &attention {
            let resolved = self.world.client.resolve(operation.id.clone()).await;
            resolved.context("it cannot be resolved")?;
        }
        if !attention.is_empty() {
            // An agent hears at the beginning of its next session that an operation was given up, and sets its
            // journal aside.
            let restart = Blow {
                at: Moment::Idle,
                victim: Victim::Agent,
                how: How::Kill {
                    away: Duration::ZERO,
                    again: None,
                },
            };
            self.strike(&restart, "between operations").await;
        }
        let calls = attention
            .iter()
            .map(|operation| match operation.resource.as_str() {
                // The next backup takes away what one left that was given up.
                "default" => Call::Backup,
                _ if self.world.site.path("active").exists() => Call::Destroy,
                _ => Call::Create,
            });
        for call in calls.collect::<Vec<_>>() {
            Box::pin(self.undisturbed(call)).await?;
        }
        Ok(())
    }

    /// Everything that a person needs to see it again.
    fn obituary(&self, error: &anyhow::Error) -> String {
        let Course { seed, kills, has } = self.course;
        let without = match has {
            Has::Hypervisor => " --no-pool",
            Has::HypervisorAndPool => "",
        };
        self.tell(
            error,
            &format!("--worlds 1 --kills {kills} --seed {seed}{without}"),
            &seed.to_string(),
        )
    }

    /// The same, with the arguments of `crash` that show it again, and a name for where its logs go.
    pub(super) fn tell(&self, error: &anyhow::Error, replay: &str, name: &str) -> String {
        let mut text = format!("{error:#}\nreplay: crash {replay}\n{}", self.story);
        let kept = std::env::temp_dir().join(format!("hostler-crash-{name}"));
        let _ = std::fs::create_dir_all(&kept);
        for log in ["coordinator.log", "agent.log"] {
            let said = std::fs::read_to_string(self.world.site.path(log)).unwrap_or_default();
            let _ = std::fs::write(kept.join(log), said);
        }
        let _ = write!(text, "the logs are in {}", kept.display());
        text
    }
}

fn broken(evidence: &Evidence) -> Option<String> {
    invariants::ALL.iter().find_map(|(name, holds)| {
        let words = holds(evidence).err()?;
        Some(format!("\"{name}\" is broken: {words}"))
    })
}

fn end(operation: &fleet::Operation) -> &'static str {
    use hostler_common::rpc::operations::v1::OperationState;
    match operation.state() {
        OperationState::Completed => "COMPLETED",
        _ if operation.needs_attention => "FAILED, needs attention (attempts used up), resolved",
        _ if operation.message.contains("cancelled by") => "FAILED, cancelled and undone",
        _ => "FAILED, undone",
    }
}

/// Waits for a moment of an operation. What came first.
async fn until(moment: Moment, mut seen: watch::Receiver<Seen>) -> &'static str {
    let Moment::Line(lines, after) = moment else {
        return "between operations";
    };
    // An error means that the client is gone, which is an end too.
    let _ = seen.wait_for(|seen| seen.over || seen.lines >= lines).await;
    if !seen.borrow().over {
        tokio::time::sleep(after).await;
    }
    let seen = seen.borrow();
    match (seen.over, &seen.id) {
        (true, _) => "right after an operation",
        (false, None) => "before the operation was acknowledged",
        (false, Some(_)) => "in an operation",
    }
}

pub(super) async fn cancel_at(client: Client, moment: Moment, mut seen: watch::Receiver<Seen>) {
    until(moment, seen.clone()).await;
    let id = match seen.wait_for(|seen| seen.over || seen.id.is_some()).await {
        Ok(seen) => seen.id.clone(),
        Err(_) => None,
    };
    if let Some(id) = id {
        client.cancel(id).await;
    }
}

/// Puts something else where a file of the pool is, keeping what it was.
pub(super) fn spoil(pool: &LoopPool) {
    let file = pool.mount_point().join(SPOILT);
    let original = pool.path("original");
    std::fs::copy(&file, &original).expect("the file is copied");
    std::fs::write(&file, "spoilt").expect("the file is written");
}

/// Lines of the logs that tell of a bug.
fn panics(world: &World) -> Vec<String> {
    let said = ["coordinator.log", "agent.log"]
        .map(|log| std::fs::read_to_string(world.site.path(log)).unwrap_or_default());
    let lines = said.iter().flat_map(|said| said.lines());
    let bad = lines.filter(|line| line.contains("panicked at") || line.contains("(a bug)"));
    bad.map(str::to_owned).collect()
}
