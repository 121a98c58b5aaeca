//! A deterministic simulation of the whole: the product's coordinator, agents and journals on a simulated network,
//! clock, store and host, driven by one seed.
//!
//! Everything of one seed runs on one thread with a clock that jumps to whatever is due next, so that minutes take
//! milliseconds and a seed replays exactly. What is the product's: the services and all that is behind them, the
//! engine, dispatch, liveness, enrolment and the conversation of a session; the agent's session, desk, executor and
//! journal with its files. What is simulated: the network (`network.rs`), the disk under the store
//! (`coordinator.rs`), what steps do (`host.rs`), how long calls take, randomness, both clocks. What is not: TLS,
//! gRPC's framing, SQLite, libvirt; other tests have those.
//!
//! The invariants are named in the functions that check them, `invariant_*`.

mod absences;
mod agent;
mod client;
mod coordinator;
mod dice;
mod faults;
mod host;
mod network;
mod scenario;
pub mod seeds;
mod witness;
mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::origin;
use hostler_common::rpc::operations::v1::HypervisorState;
use hostler_coordinator::store::memory::Keys;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::absences::Absences;
use self::agent::Agent;
use self::client::Client;
use self::coordinator::Coordinator;
use self::faults::Faults;
use self::host::Host;
use self::network::Network;
use self::witness::Witness;
use self::world::World;
pub use self::world::{Tally, Trace};

/// The wall clock at the begin of every simulation.
const BEGIN_MS: i64 = 1_795_300_000_000;

/// How long a fleet may take to come to rest once nothing fails any more.
const REST: Duration = Duration::from_secs(3600);

/// What became of one seed.
#[derive(Debug)]
pub struct Ended {
    /// The seed.
    pub seed: u64,
    /// Of the whole trace: the same for each run of a seed.
    pub hash: u64,
    /// Which invariants did not hold, and how.
    pub broken: Vec<String>,
    /// How often what happened.
    pub tally: Tally,
    /// How much time was simulated.
    pub simulated: Duration,
}

/// Simulates `seed`.
///
/// # Panics
/// When this machine gives no runtime or no directory.
pub fn run(seed: u64, trace: Trace) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let dir = directory();
    let world = runtime.block_on(async {
        let world = World::new(seed, trace);
        let clock = world.clone();
        let wall = move || {
            let elapsed = i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX);
            BEGIN_MS + elapsed + clock.clock_offset()
        };
        let _simulated = origin::simulate(wall, seed);
        simulate(&world, dir.path()).await;
        world
    });
    let simulated = runtime.block_on(async { world.elapsed() });
    drop(runtime);
    let (hash, broken, tally) = world.end();
    Ended {
        seed,
        hash,
        broken,
        tally,
        simulated,
    }
}

/// Journals wait for the disk; in memory they do not.
fn directory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let made = match memory.is_dir() {
        true => TempDir::new_in(memory),
        false => TempDir::new(),
    };
    made.expect("a directory")
}

async fn simulate(world: &World, dir: &Path) {
    world.note(format!("{:?}", world.scenario()));
    let hosts: Vec<_> = (0..world.scenario().hosts)
        .map(|number| Host::new(world, number))
        .collect();
    let witness = Witness::new(world, &hosts);
    let network = Network::new(world, &witness);
    let coordinator = Coordinator::new(world, &witness, &Keys::default());
    let absences = Absences::new(world.scenario());
    let agents = hosts.iter().map(|host| Agent::new(world, host.clone(), dir));
    let mut faults = Faults::new(world, agents.collect(), &coordinator, &network, &absences);
    let client = |name: String| Client {
        name,
        world: world.clone(),
        coordinator: coordinator.clone(),
        witness: witness.clone(),
        absences: absences.clone(),
        hypervisors: hosts.iter().flat_map(Host::ids).collect(),
    };
    coordinator.start().await;
    for agent in &mut faults.agents {
        agent.start(&network, &coordinator);
    }
    let mut clients = JoinSet::new();
    for number in 0..world.scenario().clients {
        clients.spawn(client(format!("client{number}")).run());
    }
    let person = client("person".to_owned());
    let looking = person.clone();
    clients.spawn(async move {
        while !looking.world.is_calm() {
            sleep(Duration::from_secs(5)).await;
            looking.resolve().await;
            looking.list().await;
        }
    });
    faults.storm(Instant::now() + world.scenario().storm).await;
    rest(world, &mut faults, &witness, &person).await;
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended {
            world.broke("invariant_no_task_dies", format!("a client's: {error}"));
        }
    }
    // Nothing changes any more by itself.
    sleep(Duration::from_secs(60)).await;
    faults.check_tasks();
    witness.check_told();
    for left in unrest(&faults, &witness, &person).await {
        world.broke("invariant_all_comes_to_rest", left);
    }
}

/// Waits until nothing is left to do.
async fn rest(world: &World, faults: &mut Faults, witness: &Witness, person: &Client) {
    let until = Instant::now() + REST;
    loop {
        sleep(Duration::from_secs(1)).await;
        faults.check_tasks();
        person.resolve().await;
        let left = unrest(faults, witness, person).await;
        if left.is_empty() || world.is_broken() {
            return;
        }
        if Instant::now() >= until {
            for line in left {
                world.broke("invariant_all_comes_to_rest", line);
            }
            return;
        }
    }
}

/// What is not yet as it will stay.
async fn unrest(faults: &Faults, witness: &Witness, person: &Client) -> Vec<String> {
    let mut left = faults.leftovers();
    for (id, resource) in witness.unended() {
        left.push(format!("invariant_every_operation_ends: {id} on {resource}"));
    }
    for (id, _, resource) in witness.attention() {
        left.push(format!("invariant_attention_is_resolved: {id} on {resource}"));
    }
    let Some(states) = person.states().await else {
        left.push("invariant_the_coordinator_serves: it does not".to_owned());
        return left;
    };
    for host in faults.agents.iter().map(|agent| &agent.host) {
        for id in host.ids() {
            let parts = host.parts(&id);
            let expected = match parts {
                Some([true, true, true]) => HypervisorState::AvailableToDestroy,
                _ => HypervisorState::AvailableToCreate,
            };
            let listed = states.get(&id).copied();
            if listed != Some(expected) {
                left.push(format!(
                    "invariant_the_list_is_the_truth: {id} is {parts:?} and listed as {listed:?}"
                ));
            }
        }
    }
    left
}
