//! What has been told of an operation so far: prints news once, and remembers the operations' ids.
//! It knows no stream. What is printed twice or not at all after a reconnect is decided here.

use std::collections::{BTreeMap, HashSet};

use hostler_common::id::{HypervisorId, OperationId};
use serde::Serialize;

use super::updates::Update;
use crate::command::Context;
use crate::failure::Failure;
use crate::output::text::escape;
use crate::output::view::OperationState;
use crate::output::{self, Format, Progress};

/// The story of one request.
pub(super) struct Story {
    format: Format,
    progress: Progress,
    /// As `create of hv1`.
    what: String,
    /// What was asked for. Empty when an operation is watched.
    wanted: Vec<HypervisorId>,
    /// The operation that is watched.
    watched: Option<OperationId>,
    /// The operations that the coordinator has named so far.
    accepted: BTreeMap<HypervisorId, OperationId>,
    times: Times,
    told: HashSet<String>,
    /// After a reconnect the coordinator tells from the beginning.
    connection: Connection,
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
}

impl Story {
    /// Of a request for these.
    pub(super) fn begin(context: &Context, what: String, wanted: Vec<HypervisorId>) -> Self {
        Self::new(context, what, wanted, None, Times::Hidden)
    }

    /// Of an operation that exists.
    pub(super) fn of_operation(context: &Context, id: OperationId) -> Self {
        Self::new(
            context,
            format!("operation {id}"),
            Vec::new(),
            Some(id),
            Times::Shown,
        )
    }

    fn new(
        context: &Context,
        what: String,
        wanted: Vec<HypervisorId>,
        watched: Option<OperationId>,
        times: Times,
    ) -> Self {
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
            wanted,
            watched,
            accepted: BTreeMap::new(),
            times,
            told: HashSet::new(),
            connection: Connection::First,
        }
    }

    /// Tells a piece of news, unless it was told before a reconnect.
    pub(super) fn tell(&mut self, update: &Update) -> Result<(), Failure> {
        self.learn(update);
        let known = !self.told.insert(update.message.clone());
        if known && self.connection == Connection::Again {
            return Ok(());
        }
        self.print(update)
    }

    fn print(&mut self, update: &Update) -> Result<(), Failure> {
        let Update { state, message, time } = update;
        match self.format {
            Format::Json => output::print_line(&Line {
                time,
                state: *state,
                message,
                operation_ids: &self.concerned(&update.message),
            }),
            Format::Table => {
                let line = format!("{:<9}  {}", state.capitals(), escape(message));
                self.progress.say(match self.times {
                    Times::Shown => format!("{time}  {line}"),
                    Times::Hidden => line,
                })
            }
        }
    }

    /// Remembers the id that the coordinator names when it accepts an operation.
    fn learn(&mut self, update: &Update) {
        if let Some((hypervisor, operation)) = acceptance(&self.wanted, &update.message) {
            self.accepted.entry(hypervisor.clone()).or_insert(operation);
        }
    }

    /// Whether the operation of everything that was asked for is known.
    pub(super) fn all_accepted(&self) -> bool {
        self.accepted.len() == self.wanted.len()
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
        self.watched
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
        !self.told.is_empty()
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
        // On a terminal the error says it, right below.
        if !(failed && self.progress.is_spinning()) {
            self.print(&last)?;
        }
        self.progress.end()?;
        match failed {
            false => Ok(()),
            true => Err(Failure::Operation {
                what: self.what.clone(),
                message: last.message,
                show: self.ids(),
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
