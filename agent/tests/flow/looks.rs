//! The looks at the host: how often, how much, and what is reported when one hangs. Time is paused.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use hostler_agent::hypervisor::Look;
use hostler_agent::session::report::{self, Observe, Reporter};
use hostler_common::rpc::hostler::agent::v1::{HostReport, HypervisorReport, Inventory, Libvirt, Observed};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

/// A host in service with `cpu_threads`.
fn host(cpu_threads: u32) -> HostReport {
    HostReport {
        pools: vec![],
        inventory: Some(Inventory {
            cpu_threads,
            libvirt: Some(Libvirt::default()),
            ..Inventory::default()
        }),
        hypervisors: vec![HypervisorReport {
            id: "hv-1".into(),
            observed: Observed::InService.into(),
            ..HypervisorReport::default()
        }],
    }
}

/// The looks so far.
type Looks = Arc<Mutex<Vec<Look>>>;

fn spawn(tasks: &mut JoinSet<()>, stop: &CancellationToken) -> (Reporter, Looks) {
    let looks = Looks::default();
    let seen = Arc::clone(&looks);
    let observe: Observe = Arc::new(move |look| {
        seen.lock().unwrap().push(look);
        host(8)
    });
    let reporter = report::spawn(tasks, observe, host(1), DEADLINE, stop.clone());
    (reporter, looks)
}

async fn looked(reporter: &Reporter, number: u64) {
    let mut latest = reporter.latest();
    latest.wait_for(|seen| seen.number >= number).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_events_brings_five_looks_a_second_and_a_whole_one_each_ten() {
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    let (reporter, looks) = spawn(&mut tasks, &stop);
    looked(&reporter, 1).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(25) {
        reporter.changed();
        // Time is paused: this lets 50 ms pass in none.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let looks = looks.lock().unwrap().clone();
    assert!((50..=130).contains(&looks.len()), "{}", looks.len());
    let whole = looks.iter().filter(|look| **look == Look::Whole).count();
    assert_eq!(whole, 3, "{looks:?}");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_event_after_a_quiet_second_is_looked_at_at_once_and_who_waits_gets_a_whole_look() {
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    let (reporter, looks) = spawn(&mut tasks, &stop);
    looked(&reporter, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begin = Instant::now();
    reporter.changed();
    looked(&reporter, 2).await;
    assert!(
        begin.elapsed() < Duration::from_millis(200),
        "{:?}",
        begin.elapsed()
    );
    // Nobody who waits for the end of an operation waits for the pause.
    let begin = Instant::now();
    reporter.changed();
    let number = reporter.want();
    looked(&reporter, number).await;
    assert!(
        begin.elapsed() < Duration::from_millis(200),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(*looks.lock().unwrap(), [Look::Whole, Look::Quick, Look::Whole]);
    stop.cancel();
}

#[tokio::test]
async fn a_first_look_that_hangs_is_reported_from_what_is_known_without_it() {
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    let (release, hang) = mpsc::channel::<()>();
    let hang = Mutex::new(hang);
    let observe: Observe = Arc::new(move |_| {
        let _ = hang.lock().unwrap().recv();
        host(8)
    });
    let soon = Duration::from_millis(20);
    let reporter = report::spawn(&mut tasks, observe, host(1), soon, stop.clone());
    looked(&reporter, 1).await;
    let report = reporter.latest().borrow().report.clone().unwrap();
    let inventory = report.inventory.as_ref().unwrap();
    assert_eq!(inventory.cpu_threads, 1);
    let problem = &inventory.libvirt.as_ref().unwrap().problem;
    assert!(problem.contains("looking at the host took longer"), "{problem}");
    assert_eq!(report.hypervisors[0].observed(), Observed::Unknown);
    stop.cancel();
    drop(release);
}
