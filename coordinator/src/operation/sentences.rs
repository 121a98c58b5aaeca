//! What people read about operations, in one place. Lines are bounded here, so that a way out that is appended
//! is never cut off.

use hostler_common::id::{OperationId, ResourceName};
use hostler_common::operation::{ReadShare, Request, RestoreInto};
use prost_types::Any;

use super::record::OperationRecord;
use super::state::{End, Lease, Operator};

/// The longest line that is stored, in bytes, without what [`ending`] appends.
const LINE_AT_MOST: usize = 2048;

/// Why nothing runs on a resource that needs attention, and the way out.
pub fn attention(resource: &ResourceName, id: OperationId) -> String {
    format!(
        "{resource} needs attention since operation {id}: see `hostler operations show {id}`, look at the host, then `hostler operations resolve {id} --note …`"
    )
}

/// Who keeps others away from the resource of a client's lock: `locked by … until …: disk swap`.
pub fn locked(hold: &OperationRecord) -> String {
    format!("locked by {}", holder(hold))
}

/// What an operation behind `first` waits for.
pub fn waits_for(first: &OperationRecord) -> String {
    match first.operator() {
        Operator::Agent => format!("waits for operation {} ({})", first.id, first.kind.verb()),
        Operator::Client => format!("waits for the lock of {}", holder(first)),
    }
}

fn holder(hold: &OperationRecord) -> String {
    let mut words = hold.requested_by.clone();
    if let Some(lease) = hold.lease() {
        words.push_str(&format!(" until {}", lease.locked_until));
    }
    if !hold.reason.is_empty() {
        words.push_str(&format!(": {}", hold.reason));
    }
    words
}

/// Why a client cannot hold the resource of `running`, which an agent carries out.
pub fn busy(running: &OperationRecord) -> String {
    let id = running.id;
    let held = match running.lease() {
        Some(lease) => format!(
            "the agent of {} holds it until {} and may renew that",
            running.host, lease.locked_until
        ),
        None => "it has not ended".to_owned(),
    };
    format!(
        "{} is busy with operation {id} ({}), asked for by {}: {held}; see `hostler operations show {id}`",
        running.resource,
        running.kind.verb(),
        running.requested_by
    )
}

/// What a request does to its resource: `expand default by at least 1.00 GiB`.
pub fn what(request: &Request, resource: &ResourceName) -> String {
    let verb = request.kind().verb();
    match request {
        Request::CreateHypervisor(_) | Request::DestroyHypervisor(_) | Request::CreateBackup => {
            format!("{verb} {resource}")
        }
        Request::ExpandStorage { min } => format!("{verb} {resource} by at least {min}"),
        Request::ShrinkStorage { max } => format!("{verb} {resource} by at most {max}"),
        Request::VerifyBackup { id: None, read } => format!("{verb} {resource}{}", share(*read)),
        Request::VerifyBackup { id: Some(id), read } => {
            format!("verify backup {id} of {resource}{}", share(*read))
        }
        Request::RestoreBackup { id, into, paths } => {
            let what = match paths.as_slice() {
                [] => "all files".to_owned(),
                [path] => path.to_string(),
                [first, _] => format!("{first} and 1 other path"),
                [first, others @ ..] => format!("{first} and {} other paths", others.len()),
            };
            let place = match into {
                RestoreInto::Directory(path) => format!("into {}", path.display()),
                RestoreInto::Places => "to where they were".to_owned(),
                RestoreInto::PlacesOverwriting => "to where they were, over what is there".to_owned(),
            };
            line(&format!("restore {what} of {resource} from backup {id} {place}"))
        }
        Request::DeleteBackup { id } => format!("delete backup {id} of {resource}"),
    }
}

fn share(read: ReadShare) -> String {
    match read {
        ReadShare::ALL => String::new(),
        part => format!(", reading {} % of the data back", part.percent()),
    }
}

/// The same of an operation.
pub fn what_of(record: &OperationRecord) -> String {
    match Request::of(&Any::from(&record.request)) {
        Ok(request) => what(&request, &record.resource),
        // A client's lock; or a later version stored it.
        Err(_) => format!("{} {}", record.kind.verb(), record.resource),
    }
}

/// The last line of an operation.
pub fn ending(record: &OperationRecord, said: &str) -> String {
    let said = line(said);
    match record.end() {
        Some(End::NeedsAttention) => format!("{said}; {}", attention(&record.resource, record.id)),
        Some(End::Completed) if record.cancel.is_some() => {
            format!("{said}; it was done before it could be cancelled")
        }
        Some(End::Completed | End::Failed) | None => said,
    }
}

/// What is said when the holder of `lease` has not renewed it. One that forbade a cancel was to say how it ended.
pub fn expired(after: &OperationRecord, lease: &Lease) -> String {
    let (host, seconds) = (&after.host, lease.lock_for_seconds);
    let dead = match lease.is_disabled_cancel {
        true => "operator dead: ",
        false => "",
    };
    match (after.operator(), after.end()) {
        (Operator::Client, Some(End::Failed)) => format!(
            "{dead}{} has neither renewed nor released its lock of {seconds} s, which nobody else could end",
            after.requested_by
        ),
        (Operator::Client, _) => "the lock ended at its time".to_owned(),
        (Operator::Agent, None) => format!(
            "{dead}the agent of {host} has not renewed its lease of {seconds} s; waiting for it to take the operation again"
        ),
        (Operator::Agent, Some(_)) => {
            let attempts = after.life.attempts;
            let given_up =
                format!("{dead}given up: the agent of {host} took it {attempts} times and never finished");
            ending(after, &given_up)
        }
    }
}

/// What a peer said, without control characters and bounded.
pub fn line(said: &str) -> String {
    bounded(said, LINE_AT_MOST)
}

/// The text without control characters, at most `at_most` bytes and then an ellipsis.
pub fn bounded(text: &str, at_most: usize) -> String {
    let mut clean: String = text.chars().filter(|c| !c.is_control()).collect();
    if clean.len() > at_most {
        let cut = (0..=at_most)
            .rev()
            .find(|at| clean.is_char_boundary(*at))
            .unwrap_or(0);
        clean.truncate(cut);
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use hostler_common::bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_peer_says_is_bounded_and_cannot_paint_a_terminal() {
        assert_eq!(bounded("a\u{1b}[31mb\n", 100), "a[31mb");
        assert_eq!(bounded("ééé", 3), "é…");
        assert_eq!(line(&"x".repeat(1 << 20)).len(), LINE_AT_MOST + '…'.len_utf8());
    }

    #[test]
    fn what_is_asked_for_reads_as_people_say_it() {
        let said = |request: &Request| what(request, &"tank".parse().unwrap());
        let id = || "abcd".parse::<hostler_common::operation::BackupId>().unwrap();
        let restore = |paths: &[&str], into| Request::RestoreBackup {
            id: id(),
            into,
            paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
        };
        for (request, words) in [
            (
                Request::ShrinkStorage { max: Bytes(3 << 29) },
                "shrink tank by at most 1.50 GiB",
            ),
            (Request::CreateBackup, "back up tank"),
            (
                Request::VerifyBackup {
                    id: None,
                    read: ReadShare::ALL,
                },
                "verify backups of tank",
            ),
            (
                restore(&[], RestoreInto::Directory("/srv/x".into())),
                "restore all files of tank from backup abcd into /srv/x",
            ),
            (
                restore(&["a"], RestoreInto::Places),
                "restore a of tank from backup abcd to where they were",
            ),
            (
                restore(&["a", "b", "c"], RestoreInto::PlacesOverwriting),
                "restore a and 2 other paths of tank from backup abcd to where they were, over what is there",
            ),
            (Request::DeleteBackup { id: id() }, "delete backup abcd of tank"),
        ] {
            assert_eq!(said(&request), words);
        }
    }
}
