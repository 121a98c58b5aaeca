//! What has been told of an operation so far: prints news once, and remembers the operations' ids.
//! It knows no stream. What is printed twice or not at all after a reconnect is decided here.

use std::collections::{BTreeMap, HashSet};

use hostler_common::id::{HypervisorId, OperationId};
use serde::Serialize;

use super::updates::Update;
use super::wish::Asked;
use crate::command::Context;
use crate::failure::Failure;
use crate::output::text::escape;
use crate::output::view::{Measure, OperationState};
use crate::output::{self, Format, Progress};

/// The story of one request.
pub(super) struct Story {
    format: Format,
    progress: Progress,
    /// As `create of hv1`.
    what: String,
    /// Where to look when there is no operation to show.
    look: &'static str,
    aim: Aim,
    /// The hypervisors that were asked for. Empty when an operation is watched, and for pools.
    wanted: Vec<HypervisorId>,
    /// The operation that is watched, or the one on a pool once it is named.
    operation: Option<OperationId>,
    /// The operations on hypervisors that the coordinator has named so far.
    accepted: BTreeMap<HypervisorId, OperationId>,
    times: Times,
    /// Whether the coordinator has said anything.
    begun: bool,
    told: HashSet<String>,
    /// After a reconnect the coordinator tells from the beginning.
    connection: Connection,
}

/// Which end is a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// That it completes.
    Done,
    /// That it does not.
    Stopped,
}

/// Whether lines begin with their time: those of a change are happening now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Shown,
    Hidden,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    First,
    Lost,
    Again,
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    state: OperationState,
    message: &'a str,
    operation_ids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<Measure<'a>>,
}

impl Story {
    /// Of a request.
    pub(super) fn begin(context: &Context, asked: &Asked) -> Self {
        Self {
            look: asked.call().look(),
            wanted: asked.hypervisors().to_vec(),
            ..Self::new(context, asked.words(), Times::Hidden)
        }
    }

    /// Of an operation that exists.
    pub(super) fn of_operation(context: &Context, id: OperationId, aim: Aim) -> Self {
        Self {
            aim,
            operation: Some(id),
            ..Self::new(context, format!("operation {id}"), Times::Shown)
        }
    }

    fn new(context: &Context, what: String, times: Times) -> Self {
        let format = context.settings.output;
        // Programs that read JSON get no spinner beside it.
        let terminal = match format {
            Format::Table => context.terminal,
            Format::Json => output::Terminal {
                spinner: false,
                ..context.terminal
            },
        };
        Self {
            format,
            progress: Progress::start(terminal),
            what,
            look: "hostler operations list",
            aim: Aim::Done,
            wanted: Vec::new(),
            operation: None,
            accepted: BTreeMap::new(),
            times,
            begun: false,
            told: HashSet::new(),
            connection: Connection::First,
        }
    }

    /// Tells a piece of news, unless it was told before a reconnect.
    pub(super) fn tell(&mut self, update: &Update) -> Result<(), Failure> {
        self.learn(update);
        // How far it is is never old.
        if update.measure.is_none() {
            let known = !self.told.insert(update.message.clone());
            if known && self.connection == Connection::Again {
                return Ok(());
            }
        }
        self.print(update)
    }

    fn print(&mut self, update: &Update) -> Result<(), Failure> {
        let Update {
            state,
            message,
            time,
            measure,
            ..
        } = update;
        if self.format == Format::Json {
            return output::print_line(&Line {
                time,
                state: *state,
                message,
                operation_ids: &self.concerned(message),
                measure: measure.as_ref().map(Measure::of),
            });
        }
        let line = format!("{:<9}  {}", state.capitals(), escape(message));
        let line = match self.times {
            Times::Shown => format!("{time}  {line}"),
            Times::Hidden => line,
        };
        match measure {
            Some(measure) => self.progress.measure(measure, line),
            None => self.progress.say(line),
        }
    }

    /// Remembers the id that the coordinator names when it accepts an operation.
    fn learn(&mut self, update: &Update) {
        self.begun = true;
        if self.wanted.is_empty() {
            self.operation = self.operation.or(update.operation);
        }
        if let Some((hypervisor, operation)) = acceptance(&self.wanted, &update.message) {
            self.accepted.entry(hypervisor.clone()).or_insert(operation);
        }
    }

    /// Whether the operation of everything that was asked for is known.
    pub(super) fn all_accepted(&self) -> bool {
        match self.wanted.len() {
            0 => self.operation.is_some(),
            wanted => self.accepted.len() == wanted,
        }
    }

    /// The operation that is watched, or the one on a pool if the coordinator has named it.
    pub(super) fn operation(&self) -> Option<OperationId> {
        self.operation
    }

    /// The operation on `id`, if the coordinator has named it.
    pub(super) fn accepted(&self, id: &HypervisorId) -> Option<OperationId> {
        self.accepted.get(id).copied()
    }

    /// How a bulk call begins what it says of `id`; nothing when only one was asked for.
    pub(super) fn prefix(&self, id: &HypervisorId) -> String {
        match self.wanted.as_slice() {
            [_] => String::new(),
            _ => format!("{id}: "),
        }
    }

    /// The operations that are known.
    pub(super) fn ids(&self) -> Vec<String> {
        self.operation
            .iter()
            .chain(self.accepted.values())
            .map(ToString::to_string)
            .collect()
    }

    /// The operations that a message is about: of a bulk call the one of the hypervisor that it begins with. Every
    /// line with the ids of all would be a gigabyte for a thousand hypervisors.
    fn concerned(&self, message: &str) -> Vec<String> {
        let named = || {
            let (id, _) = message.split_once(": ")?;
            self.wanted.iter().find(|wanted| wanted.as_str() == id)
        };
        match (self.wanted.as_slice(), named()) {
            ([_, _, ..], Some(id)) => self.accepted(id).iter().map(ToString::to_string).collect(),
            _ => self.ids(),
        }
    }

    /// Whether the coordinator has said anything.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the stream broke and none has been opened since.
    pub(super) fn is_reconnecting(&self) -> bool {
        self.connection == Connection::Lost
    }

    /// The stream broke.
    pub(super) fn lost(&mut self, why: &str) {
        self.connection = Connection::Lost;
        self.progress
            .note(&format!("{why}; the operation goes on; connecting again"));
    }

    /// A stream is open again.
    pub(super) fn found_again(&mut self) {
        if self.connection == Connection::Lost {
            self.connection = Connection::Again;
            self.progress.note("connected again");
        }
    }

    /// Says how to go on without this client.
    pub(super) fn detached(&mut self) -> Result<(), Failure> {
        self.progress.end()?;
        match (self.format, self.ids().as_slice()) {
            (Format::Json, _) => Ok(()),
            (Format::Table, []) => {
                output::print("accepted; follow it with: hostler operations list --unended")
            }
            (Format::Table, ids) => {
                for id in ids {
                    output::print(&format!(
                        "accepted; follow it with: hostler operations watch {id}"
                    ))?;
                }
                Ok(())
            }
        }
    }

    /// Tells the outcome.
    pub(super) fn end(&mut self, last: Update) -> Result<(), Failure> {
        self.learn(&last);
        let failed = last.state == OperationState::Failed;
        let is_good = failed == (self.aim == Aim::Stopped);
        // On a terminal the error says it, right below.
        if is_good || !failed || !self.progress.is_spinning() {
            self.print(&last)?;
        }
        self.progress.end()?;
        match (is_good, self.aim) {
            (true, _) => Ok(()),
            (false, Aim::Stopped) => Err(Failure::NotStopped { show: self.ids() }),
            (false, Aim::Done) => Err(Failure::Operation {
                what: self.what.clone(),
                message: last.message,
                show: self.ids(),
                look: self.look,
            }),
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.progress.end()
    }
}

/// The operation that a message names as accepted: `operation 019aa111-…: create hv1 on host node1: scheduled`,
/// in a bulk call with `hv1: ` before it. An operation named later in a message is another one.
fn acceptance<'a>(wanted: &'a [HypervisorId], message: &str) -> Option<(&'a HypervisorId, OperationId)> {
    let (hypervisor, words) = match wanted {
        [only] => (only, message),
        many => {
            let (id, words) = message.split_once(": ")?;
            (many.iter().find(|wanted| wanted.as_str() == id)?, words)
        }
    };
    // Exactly the form that is printed: the parser alone would take other forms of a UUID too.
    let id = words.strip_prefix("operation ")?.get(..36)?;
    Some((hypervisor, id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019aa111-2222-7333-8444-555566667777";
    const OTHER: &str = "019aa111-2222-7333-8444-888899990000";

    fn named(wanted: &[&str], message: &str) -> Option<(String, String)> {
        let wanted: Vec<HypervisorId> = wanted.iter().map(|id| id.parse().unwrap()).collect();
        acceptance(&wanted, message).map(|(hypervisor, id)| (hypervisor.to_string(), id.to_string()))
    }

    #[test]
    fn the_id_is_found_where_the_coordinator_puts_it() {
        let expected = Some(("hv1".to_owned(), ID.to_owned()));
        let single =
            format!("operation {ID}: create hv1 on host node1: waits for operation {OTHER} (destroy)");
        assert_eq!(named(&["hv1"], &single), expected);
        assert_eq!(named(&["hv0", "hv1"], &format!("hv1: {single}")), expected);
    }

    #[test]
    fn an_operation_that_is_only_mentioned_is_not_taken() {
        for message in [
            "",
            "operation",
            "operation x",
            "operation 019aa111",
            "operation ééééééééééééééééééééééé",
            &format!("waits for operation {ID}"),
            &format!("domain {ID} started"),
        ] {
            assert_eq!(named(&["hv1"], message), None, "{message}");
        }
        assert_eq!(
            named(&["hv0", "hv1"], &format!("operation {ID}: create hv1")),
            None
        );
        assert_eq!(
            named(&["hv0", "hv1"], &format!("hv9: operation {ID}: create hv9")),
            None
        );
    }
}
