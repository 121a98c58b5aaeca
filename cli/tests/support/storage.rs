//! What happens to the pools that are played: `fast`, the default; `full`, which nothing fits; `mute` and `breaks`,
//! whose streams break; `waits`, whose operations never end; `away` and `unheard`, which are refused.

use hostler_common::rpc::hostler::agent::v1 as agent;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::operations::v1::OperationState;
use tokio_stream::StreamExt as _;
use tonic::Status;

use super::{HALF, ID, OTHER, Responses};

/// One message of a stream about a pool.
pub(crate) struct News {
    pub(crate) state: OperationState,
    pub(crate) msg: String,
    pub(crate) measure: Option<agent::Measure>,
    pub(crate) operation: String,
}

type Line = Result<News, Status>;

fn say(state: OperationState, msg: impl Into<String>, operation: &str) -> Line {
    Ok(News {
        state,
        msg: msg.into(),
        measure: None,
        operation: operation.into(),
    })
}

fn measure(percent: u64) -> Line {
    const TOTAL: u64 = 4 << 30;
    let measure = agent::Measure {
        what: "relocate /dev/sdb".into(),
        done_bytes: (TOTAL * percent).div_ceil(100),
        total_bytes: TOTAL,
        bytes_per_second: 120 << 20,
        seconds_left: Some((100 - percent) / 3),
        ..Default::default()
    };
    Ok(News {
        state: OperationState::Active,
        msg: String::new(),
        measure: Some(measure),
        operation: ID.into(),
    })
}

/// What is said before there is a stream.
pub(crate) fn refusal(pool: &str) -> Result<(), Status> {
    match pool {
        "unheard" => Err(Status::not_found("no storage pool is called unheard")),
        "away" => Err(Status::unavailable("the host of pool away is not connected")),
        "denied" => Err(Status::permission_denied("the role admin is needed")),
        _ => Ok(()),
    }
}

/// An operation on a pool.
pub(crate) fn tale(pool: &str, verb: &str) -> Vec<Line> {
    use OperationState::{Active, Completed, Failed, Scheduled};
    let name = if pool.is_empty() { "fast" } else { pool };
    let scheduled = say(
        Scheduled,
        format!("operation {ID}: {verb} {name} on host node1: scheduled"),
        ID,
    );
    match pool {
        "full" => vec![say(
            Failed,
            "pool full has 4.00 GiB to spare, 10.00 GiB are asked for; nothing was changed",
            "",
        )],
        "mute" => vec![Err(Status::unavailable("the coordinator is ending"))],
        "breaks" => vec![
            scheduled,
            measure(40),
            Err(Status::unavailable("the coordinator is ending")),
        ],
        "waits" => vec![scheduled, measure(1), measure(2)],
        _ => {
            let mut lines = vec![scheduled, say(Active, "move data away from /dev/sdb", ID)];
            lines.extend((0..=97).map(measure));
            lines.push(say(Active, "give /dev/sdb up", ID));
            lines.push(say(Completed, format!("{verb} of {name} is done"), ID));
            lines
        }
    }
}

/// What follows of the operation whose stream broke.
pub(crate) fn resumed() -> Vec<Line> {
    let mut lines = tale("breaks", "expand");
    lines.pop();
    lines.push(measure(80));
    lines.push(say(OperationState::Completed, "expand of breaks is done", ID));
    lines
}

/// What a dry run says.
pub(crate) fn dry_run(pool: &str, verb: &str) -> Vec<Line> {
    use OperationState::{Active, Completed};
    match pool {
        "full" | "mute" => tale(pool, verb),
        _ => vec![
            say(Active, "add /dev/sdc (12.00 GiB)", ""),
            say(
                Completed,
                "would grow from 12.00 GiB to 24.00 GiB; nothing was changed",
                "",
            ),
        ],
    }
}

/// An operation that somebody wants to stop.
pub(crate) fn cancelled(id: &str) -> Vec<Line> {
    use OperationState::{Active, Completed, Failed, Scheduled};
    let mut lines = vec![
        say(
            Scheduled,
            format!("operation {id}: shrink fast on host node1: scheduled"),
            id,
        ),
        measure(40),
        say(Active, "cancelled by operator/alice; undoing what is done", id),
    ];
    lines.push(match id {
        OTHER => say(Completed, "shrunk by 4.00 GiB", id),
        HALF => say(
            Failed,
            "cancelled; undoing it failed: no disk; fast stays locked",
            id,
        ),
        _ => say(Failed, "cancelled by operator/alice; undone", id),
    });
    lines
}

/// The lines, then the end; lines that do not end go on for ever.
pub(crate) fn stream<T: Send + 'static>(lines: Vec<Line>, make: fn(News) -> T) -> Responses<T> {
    let ends = lines.last().is_some_and(|last| match last {
        Ok(news) => matches!(news.state, OperationState::Completed | OperationState::Failed),
        Err(_) => true,
    });
    let lines = tokio_stream::iter(lines).map(move |line| line.map(make));
    match ends {
        true => Box::pin(lines),
        false => Box::pin(lines.chain(tokio_stream::pending())),
    }
}

/// The same as who watches the operation sees it.
pub(crate) fn watched(lines: Vec<Line>) -> Responses<fleet::WatchOperationResponse> {
    stream(lines, |it| fleet::WatchOperationResponse {
        state: it.state.into(),
        msg: it.msg,
        ts: Some(prost_types::Timestamp {
            seconds: 1_795_300_000,
            nanos: 0,
        }),
        measure: it.measure,
    })
}

/// The default pool and one whose host is away.
pub(crate) fn pools() -> Vec<fleet::StoragePool> {
    const GIB: u64 = 1 << 30;
    let device =
        |path: &str, role: agent::DeviceRole, share: u64, allocated: u64, problem: &str| agent::PoolDevice {
            path: path.into(),
            role: role.into(),
            capacity_bytes: 8 * GIB,
            share_bytes: share,
            allocated_bytes: allocated,
            problem: problem.into(),
        };
    let fast = fleet::StoragePool {
        name: "fast".into(),
        host: "node1".into(),
        report: Some(agent::PoolReport {
            backend: "btrfs".into(),
            path: "/srv/shared".into(),
            size_bytes: 8 * GIB,
            used_bytes: 3 * GIB,
            spare_bytes: 8 * GIB,
            reserve_percent: 10,
            smallest_bytes: 4 * GIB,
            data_profile: "single".into(),
            metadata_profile: "DUP".into(),
            devices: vec![
                device("/dev/sdb", agent::DeviceRole::Member, 8 * GIB, 4 * GIB, ""),
                device("/dev/sdc", agent::DeviceRole::Spare, 0, 0, ""),
                device(
                    "/dev/sdd",
                    agent::DeviceRole::Refused,
                    0,
                    0,
                    "it is mounted at /home",
                ),
            ],
            ..Default::default()
        }),
        connected: true,
        is_default: true,
        ..Default::default()
    };
    let away = fleet::StoragePool {
        name: "away".into(),
        host: "node2".into(),
        reason: "its host node2 is not connected".into(),
        ..Default::default()
    };
    vec![away, fast]
}

/// Two that begin alike, and one that does not.
pub(crate) fn backups() -> Vec<agent::Backup> {
    let backup = |beginning: &str, files| agent::Backup {
        id: format!("{beginning:0<64}"),
        time_unix_ms: 1_795_300_000_000,
        host: "node1".into(),
        operation_id: ID.into(),
        files,
        bytes: files << 20,
        tags: vec![],
    };
    vec![backup("abcd1", 3), backup("abcd2", 4), backup("beef", 0)]
}
