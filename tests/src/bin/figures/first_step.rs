//! From a client's call to the beginning of the agent's first step, against a bare call on the same port and one
//! fdatasync.
//!
//! The coordinator is a process of its own; the agent is the real one's session, desk, journal and executor, in this
//! process, so that both ends are read from one clock. Its hypervisor has one step that only notes the time.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hostler_agent::blocking::Blocking;
use hostler_agent::executor::outbox::Outbox;
use hostler_agent::executor::plan::{Job, Planned};
use hostler_agent::executor::run::Executor;
use hostler_agent::executor::step::{Before, Progress, Step, StepError};
use hostler_agent::hypervisor::Look;
use hostler_agent::journal::state_dir::StateDir;
use hostler_agent::session::desk::Desk;
use hostler_agent::session::pulse::Pulse;
use hostler_agent::session::task::SessionTask;
use hostler_agent::session::{dial, report};
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_coordinator::store::{Committed, Store, Transaction, Write};
use hostler_pki::TlsFiles;
use hostler_pki::address::CoordinatorAddress;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::nothing;
use crate::served::Served;
use crate::table::{self, median};

const AIM: f64 = 2.0;
const ROUNDS: usize = 500;
const WARMING_UP: usize = 50;
const HOST: &str = "h1";
const HYPERVISOR: &str = "hv-1";
/// A line of a journal, in bytes.
const LINE: usize = 200;
/// As the agent has them.
const FILE_PLACES: usize = 8;
const DEADLINE: Duration = Duration::from_secs(30);

/// What an operation cannot do without: the request and the offer, the proposal and its answer; the operation and its
/// lease in the store, and the first step in the journal.
const CALLS: u32 = 2;
const COMMITS: u32 = 2;

/// `disk` says which disk that is, for the rows.
///
/// # Errors
/// When an operation fails.
pub(crate) fn measure(disk: &str) -> anyhow::Result<()> {
    let clients = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // As the agent's own.
    let agents = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    clients.block_on(async {
        let served = Served::start().await;
        let (begun, steps) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let setup = Setup {
            address: served.address()?,
            files: served.site.ca.files(&format!("agent/{HOST}")),
            state_dir: served.site.path("state"),
            begun,
            stop: stop.clone(),
        };
        let agent = agents.spawn(serve(setup));
        served.until_listed(1).await?;
        let measured = compare(&served, steps, disk).await;
        stop.cancel();
        agent.await??;
        measured
    })
}

async fn compare(
    served: &Served,
    mut steps: mpsc::UnboundedReceiver<Instant>,
    disk: &str,
) -> anyhow::Result<()> {
    let channel = served.channel("client/operator/figures")?;
    let store = Store::open(&served.site.path("raw"))?;
    let mut file = File::create(served.site.path("line")).context("cannot make a file")?;
    let (mut whole, mut bare) = (Vec::new(), Vec::new());
    let (mut calls, mut syncs, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARMING_UP + ROUNDS {
        let took = first_step(channel.clone(), &mut steps).await?;
        let begun = Instant::now();
        check(channel.clone()).await?;
        let called = begun.elapsed();
        file.write_all(&[b'x'; LINE]).context("cannot write a line")?;
        file.sync_data().context("cannot sync a line")?;
        let both = begun.elapsed();
        let begun = Instant::now();
        commit(&store).await?;
        if round >= WARMING_UP {
            commits.push(begun.elapsed());
            whole.push(took);
            bare.push(both);
            calls.push(called);
            syncs.push(both - called);
        }
    }
    let (whole, bare) = (median(whole), median(bare));
    let (call, sync, commit) = (median(calls), median(syncs), median(commits));
    let least = call * CALLS + commit * COMMITS + sync;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let ratio = whole.as_secs_f64() / bare.as_secs_f64();
    table::aimed(
        &format!("first step / a bare call and an fdatasync, {disk}"),
        ratio,
        AIM,
        "",
    );
    table::told(
        "the least that it can be: 2 calls, 2 commits, 1 fdatasync",
        least.as_secs_f64() / bare.as_secs_f64(),
        "",
    );
    table::told("create to the first step", micros(whole), " µs");
    table::told("a bare call and an fdatasync", micros(bare), " µs");
    table::told("a bare call", micros(call), " µs");
    table::told("a line and its fdatasync", micros(sync), " µs");
    table::told("a commit of the store", micros(commit), " µs");
    Ok(())
}

/// From the call to the step's beginning. Returns when the operation has ended.
async fn first_step(
    channel: Channel,
    steps: &mut mpsc::UnboundedReceiver<Instant>,
) -> anyhow::Result<Duration> {
    let id = HYPERVISOR.to_owned();
    let called = Instant::now();
    let stream = OperationsServiceClient::new(channel)
        .create_hypervisor(rpc::CreateHypervisorRequest { id })
        .await?;
    let said = hostler_tests::fleet::collect(stream.into_inner()).await?;
    let (state, words) = said.last().context("the stream said nothing")?;
    ensure!(
        *state == rpc::OperationState::Completed,
        "it ended as {state:?}: {words}"
    );
    let begun = steps.try_recv().context("no step has begun")?;
    Ok(begun - called)
}

async fn check(channel: Channel) -> anyhow::Result<()> {
    let service = "operations.v1.OperationsService".to_owned();
    HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await?;
    Ok(())
}

async fn commit(store: &Store) -> anyhow::Result<()> {
    let (key, value) = ("/figures".to_owned(), vec![b'x'; 1000]);
    let transaction = Transaction {
        compares: Vec::new(),
        writes: vec![Write::Put { key, value }],
    };
    let committed = store.commit(transaction).await?;
    ensure!(matches!(committed, Committed::At(_)), "a commit conflicts");
    Ok(())
}

/// Notes when it begins.
struct Note(mpsc::UnboundedSender<Instant>);

impl Step for Note {
    fn name(&self) -> String {
        "note the time".to_owned()
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn look(&self) -> Result<Before, StepError> {
        Ok(Before::Nothing)
    }

    fn apply(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        // Nobody listens any more when the measuring has failed.
        let _ = self.0.send(Instant::now());
        Ok(())
    }

    fn undo(&self, _: Before, _: &Progress) -> Result<(), StepError> {
        Ok(())
    }
}

/// What the agent needs to be made.
struct Setup {
    address: CoordinatorAddress,
    files: TlsFiles,
    state_dir: PathBuf,
    begun: mpsc::UnboundedSender<Instant>,
    stop: CancellationToken,
}

/// The agent's session, until it is stopped.
async fn serve(setup: Setup) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let observe = |_: Look| nothing::report(&[HYPERVISOR.to_owned()]);
    let unseen = observe(Look::Whole);
    let reporter = report::spawn(
        &mut tasks,
        Arc::new(observe),
        unseen,
        DEADLINE,
        setup.stop.clone(),
    );
    let state_dir = Arc::new(StateDir::open(&setup.state_dir)?);
    let found = state_dir.found()?;
    let outbox = Outbox::default();
    let files = Blocking::new(FILE_PLACES);
    let begun = setup.begun;
    let plan = move |_: &Job, _: Option<&serde_json::Value>| {
        Ok(Planned {
            steps: vec![Box::new(Note(begun.clone()))],
            success: "noted the time".to_owned(),
            decided: serde_json::Value::Null,
            says: Vec::new(),
        })
    };
    let executor = Executor {
        plans: Arc::new(plan),
        steps: Blocking::default(),
        files: files.clone(),
        state_dir: state_dir.clone(),
        outbox: outbox.clone(),
    };
    let desk = Desk::new(HOST.parse()?, state_dir, outbox, setup.stop.clone(), &found);
    let session = SessionTask::new(
        desk,
        dial::over_tls(setup.address, setup.files, files),
        executor,
        reporter,
        Arc::new(|_, _| Err("nobody asks".to_owned())),
        Pulse::default(),
        setup.stop,
    );
    session.run().await;
    Ok(())
}
