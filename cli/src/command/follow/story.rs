//! What has been told of an operation so far: prints news once, and remembers the operations' ids.
//! It knows no stream. What is printed twice or not at all after a reconnect is decided here.

use std::collections::HashSet;

use hostler_common::id::OperationId;
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
    /// How many operations the request makes.
    wanted: usize,
    ids: Vec<OperationId>,
    times: Times,
    told: HashSet<(OperationState, String)>,
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
    operation_ids: &'a [OperationId],
}

impl Story {
    /// Of a request that makes `wanted` operations.
    pub(super) fn begin(context: &Context, what: String, wanted: usize) -> Self {
        Self::new(context, what, wanted, Vec::new(), Times::Hidden)
    }

    /// Of an operation that exists.
    pub(super) fn of_operation(context: &Context, id: OperationId) -> Self {
        Self::new(context, format!("operation {id}"), 1, vec![id], Times::Shown)
    }

    fn new(context: &Context, what: String, wanted: usize, ids: Vec<OperationId>, times: Times) -> Self {
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
            ids,
            times,
            told: HashSet::new(),
            connection: Connection::First,
        }
    }

    /// Tells a piece of news, unless it was told before a reconnect.
    pub(super) fn tell(&mut self, update: &Update) -> Result<(), Failure> {
        self.learn(update);
        let known = !self.told.insert((update.state, update.message.clone()));
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
                operation_ids: &self.ids,
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

    /// Remembers the id that the coordinator names when it accepts an operation. Later messages may name
    /// other operations.
    fn learn(&mut self, update: &Update) {
        if self.ids.len() >= self.wanted || update.state != OperationState::Scheduled && !self.told.is_empty()
        {
            return;
        }
        if let Some(id) = operation_named_in(&update.message)
            && !self.ids.contains(&id)
        {
            self.ids.push(id);
        }
    }

    /// The operations, once all are known.
    pub(super) fn known_ids(&self) -> Option<Vec<OperationId>> {
        (self.ids.len() == self.wanted).then(|| self.ids.clone())
    }

    /// The operations that are known.
    pub(super) fn ids(&self) -> Vec<String> {
        self.ids.iter().map(ToString::to_string).collect()
    }

    /// Whether the stream broke and none has been opened since.
    pub(super) fn is_reconnecting(&self) -> bool {
        self.connection == Connection::Lost
    }

    /// The stream broke.
    pub(super) fn lost(&mut self, why: &str) {
        self.connection = Connection::Lost;
        self.progress.note(&format!(
            "the stream broke ({}); the operation goes on; connecting again",
            escape(why)
        ));
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
        match (self.format, self.ids.as_slice()) {
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

/// The operation of a message like `operation 019aa111-… : create hv1 on host node1: scheduled`.
fn operation_named_in(message: &str) -> Option<OperationId> {
    let (_, rest) = message.split_once("operation ")?;
    let end = rest
        .find(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .unwrap_or(rest.len());
    // Only the form that is printed: the parser takes shorter ones too, and so would take a word like `ed`.
    rest[..end].parse().ok().filter(|_| end == 36)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019aa111-2222-7333-8444-555566667777";

    #[test]
    fn the_id_is_found_where_the_coordinator_puts_it() {
        let other = ID.replace('7', "8");
        for message in [
            format!("operation {ID}: create hv1 on host node1: scheduled"),
            format!("operation {ID}: create hv1 on host node1: waits for operation {other} (destroy)"),
            format!("hv1: operation {ID}"),
        ] {
            assert_eq!(
                operation_named_in(&message).map(|id| id.to_string()).as_deref(),
                Some(ID),
                "{message}"
            );
        }
        for message in [
            "",
            "operation",
            "operation x",
            "operation 019aa111",
            "domain {ID} started",
            "operation é",
        ] {
            assert_eq!(operation_named_in(message), None, "{message}");
        }
    }
}
