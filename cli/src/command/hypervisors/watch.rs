//! `hostler hypervisors watch`: the list, then a line for each change. A lost connection is made again, and
//! what changed meanwhile is told then: the difference of two whole lists misses nothing that still holds.

use std::time::Duration;

use clap::Args;
use hostler_common::retry::Waits;
use hostler_common::units::UnixMillis;
use serde::Serialize;
use tonic::{Code, Status};

use super::fleet::{self, Change, Fleet, News};
use crate::command::Context;
use crate::connect::Coordinator;
use crate::failure::{Failure, passes_by_itself, why_it_broke};
use crate::output::text::escape;
use crate::output::view::Hypervisor;
use crate::output::{self, Format, Terminal, table};

/// Lists hypervisors, then tells each change
#[derive(Debug, Args)]
#[command(
    long_about = "\
Prints the list, then a line for each change, until it is interrupted or --timeout has passed. A lost connection \
is made again by itself.

With --output json each line is one object. `event` is `present` for each hypervisor at the start, `synced` once \
all are sent, then `changed` or `gone`.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler hypervisors watch
  hostler hypervisors watch --output json | jq -r 'select(.event == \"changed\").hypervisor.state'"
)]
pub(crate) struct Watch {}

/// One line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypervisor: Option<&'a Hypervisor>,
}

impl Watch {
    /// Watches.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let teller = Teller {
            format: context.settings.output,
            terminal: context.terminal,
        };
        let watching = watch(&coordinator, &teller);
        match context.settings.timeout {
            // Cancel-safe: a line is printed whole between two awaits.
            Some(limit) => tokio::time::timeout(limit, watching).await.unwrap_or(Ok(())),
            None => watching.await,
        }
    }
}

async fn watch(coordinator: &Coordinator, teller: &Teller) -> Result<(), Failure> {
    let (mut fleet, mut news) = fleet::read(coordinator).await?;
    teller.begin(&fleet)?;
    loop {
        let why = match news.next().await {
            // A change, or the whole fleet once more because this reader was slow: told is what differs.
            Ok(Some(Change::Is(it))) => {
                let old = fleet.insert(it.id.clone(), (*it).clone());
                teller.changed(old.as_ref(), &it)?;
                continue;
            }
            Ok(Some(Change::Gone(id))) => {
                if fleet.remove(&id).is_some() {
                    teller.gone(&id)?;
                }
                continue;
            }
            Ok(None) => Status::unavailable("the stream ended"),
            // This reader was too slow; a new stream begins with everything.
            Err(status) if passes_by_itself(&status) || status.code() == Code::ResourceExhausted => status,
            Err(status) => return Err(coordinator.failed(fleet::WATCH, status)),
        };
        output::note(&format!("{}; connecting again", why_it_broke(&why)));
        let (now, again) = read_again(coordinator).await?;
        output::note("connected again");
        for (id, it) in &now {
            teller.changed(fleet.get(id), it)?;
        }
        for id in fleet.keys().filter(|id| !now.contains_key(*id)) {
            teller.gone(id)?;
        }
        (fleet, news) = (now, again);
    }
}

/// Reads everything once the coordinator is back, however long that takes.
async fn read_again(coordinator: &Coordinator) -> Result<(Fleet, News), Failure> {
    let mut waits = Waits::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        tokio::time::sleep(waits.next_wait()).await;
        match fleet::read(coordinator).await {
            Err(Failure::Call { status, .. }) if passes_by_itself(&status) => {}
            Err(Failure::NoAnswer { .. }) => {}
            read => return read,
        }
    }
}

/// Prints in the format that was asked for.
struct Teller {
    format: Format,
    terminal: Terminal,
}

impl Teller {
    fn begin(&self, fleet: &Fleet) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let list: Vec<_> = fleet.values().cloned().collect();
                output::print(&table::hypervisors(&list, self.terminal))
            }
            Format::Json => {
                for it in fleet.values() {
                    self.line("present", None, Some(it))?;
                }
                self.line("synced", None, None)
            }
        }
    }

    fn changed(&self, old: Option<&Hypervisor>, new: &Hypervisor) -> Result<(), Failure> {
        let changes = changes(old, new);
        if changes.is_empty() {
            return Ok(());
        }
        match self.format {
            Format::Table => output::print(&format!(
                "{}  {}  {}",
                UnixMillis::now(),
                escape(&new.id),
                escape(&changes.join("; "))
            )),
            Format::Json => self.line("changed", None, Some(new)),
        }
    }

    fn gone(&self, id: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => output::print(&format!(
                "{}  {}  no longer enrolled",
                UnixMillis::now(),
                escape(id)
            )),
            Format::Json => self.line("gone", Some(id), None),
        }
    }

    fn line(
        &self,
        event: &'static str,
        id: Option<&str>,
        hypervisor: Option<&Hypervisor>,
    ) -> Result<(), Failure> {
        output::print_line(&Line {
            time: UnixMillis::now().to_string(),
            event,
            id,
            hypervisor,
        })
    }
}

/// What differs, in words. When the agent was last heard is no change.
fn changes(old: Option<&Hypervisor>, new: &Hypervisor) -> Vec<String> {
    let Some(old) = old else {
        return vec![format!("enrolled under {}: {}", new.host, new.state.words())];
    };
    let mut changes = Vec::new();
    if old.state != new.state {
        changes.push(format!("{} → {}", old.state.words(), new.state.words()));
    }
    if old.reason != new.reason && !new.reason.is_empty() {
        changes.push(new.reason.clone());
    }
    match (old.connected, new.connected) {
        (false, true) => changes.push("its agent connected".into()),
        (true, false) => changes.push("its agent disconnected".into()),
        _ => {}
    }
    for id in new
        .operation_ids
        .iter()
        .filter(|id| !old.operation_ids.contains(id))
    {
        changes.push(format!("operation {id} accepted"));
    }
    for id in old
        .operation_ids
        .iter()
        .filter(|id| !new.operation_ids.contains(id))
    {
        changes.push(format!("operation {id} ended"));
    }
    if hardware(old) != hardware(new) {
        changes.push("inventory changed".into());
    }
    let names = |it: &Hypervisor| {
        it.running_domains
            .iter()
            .map(|domain| domain.name.clone())
            .collect::<Vec<_>>()
    };
    let (before, after) = (names(old), names(new));
    for name in after.iter().filter(|name| !before.contains(name)) {
        changes.push(format!("domain {name} runs"));
    }
    for name in before.iter().filter(|name| !after.contains(name)) {
        changes.push(format!("domain {name} stopped"));
    }
    changes
}

fn hardware(it: &Hypervisor) -> impl PartialEq + '_ {
    (
        it.cpu_threads,
        it.memory_mb,
        &it.gpus,
        &it.shared_storage,
        &it.libvirt,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::view::{Domain, State};
    use hostler_common::rpc::hostler::fleet::v1 as rpc;

    fn hypervisor() -> Hypervisor {
        let wire = rpc::Hypervisor {
            id: "hv1".into(),
            host: "node1".into(),
            connected: true,
            ..Default::default()
        };
        Hypervisor {
            operation_ids: vec!["a".into()],
            ..wire.into()
        }
    }

    #[test]
    fn a_new_hypervisor_is_a_change() {
        assert_eq!(changes(None, &hypervisor()), ["enrolled under node1: unknown"]);
    }

    #[test]
    fn only_what_differs_is_told() {
        let old = hypervisor();
        let mut new = old.clone();
        new.last_heard = Some("2026-01-01T00:00:00Z".into());
        assert!(
            changes(Some(&old), &new).is_empty(),
            "hearing from an agent is no change"
        );
        new.state = State::InService;
        new.connected = false;
        new.memory_mb = 7;
        new.operation_ids = vec!["b".into()];
        new.running_domains = vec![Domain {
            name: "d".into(),
            uuid: String::new(),
        }];
        assert_eq!(
            changes(Some(&old), &new),
            [
                "unknown → in service",
                "its agent disconnected",
                "operation b accepted",
                "operation a ended",
                "inventory changed",
                "domain d runs"
            ]
        );
    }
}
