//! ListHypervisors against a bare health check on the same connection: what the fleet costs beside the call.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use hostler_common::rpc::operations::v1 as rpc;
use hostler_common::rpc::operations::v1::operations_service_client::OperationsServiceClient;
use hostler_tests::agent::Setup;
use hostler_tests::fleet::Fleet;
use hostler_tests::wait;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::table::{self, median};

const AIM: f64 = 1.3;
const ROUNDS: usize = 5;
const CALLS: usize = 2000;
const HOSTS: usize = 20;
const HYPERVISORS_A_HOST: usize = 50;

/// The real coordinator, with the demo's host and two guests.
///
/// # Errors
/// When a call fails or the fleet is another.
pub(crate) async fn of_one_host(channel: Channel) -> anyhow::Result<()> {
    let (list, check) = compare(channel, 3, CALLS).await?;
    table::aimed(
        "ListHypervisors / health check, 3 hypervisors",
        list.as_secs_f64() / check.as_secs_f64(),
        AIM,
        "",
    );
    tell(list, check);
    Ok(())
}

/// A coordinator in this process, with simulated agents.
///
/// # Errors
/// When a call fails.
pub(crate) async fn of_a_thousand() -> anyhow::Result<()> {
    let fleet = Fleet::start().await;
    let mut agents = Vec::with_capacity(HOSTS);
    for host in 0..HOSTS {
        let ids: Vec<_> = (0..HYPERVISORS_A_HOST)
            .map(|id| format!("h{host}-{id}"))
            .collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        agents.push(Setup::of(&format!("host-{host}"), &ids).start(&fleet).await);
    }
    let all = HOSTS * HYPERVISORS_A_HOST;
    wait::until("every hypervisor is listed as it is", || async {
        let list = fleet.list().await;
        let known = |listed: &rpc::ListHypervisorsResponseHypervisor| {
            listed.state() == rpc::HypervisorState::AvailableToCreate
        };
        (list.len() == all && list.iter().all(known)).then_some(())
    })
    .await;
    let (list, check) = compare(fleet.channel("client/viewer/figures"), all, CALLS / 10).await?;
    table::told(
        &format!("the same ratio, {all} simulated hypervisors"),
        list.as_secs_f64() / check.as_secs_f64(),
        "",
    );
    tell(list, check);
    Ok(())
}

fn tell(list: Duration, check: Duration) {
    table::told("one ListHypervisors", list.as_secs_f64() * 1e6, " µs");
    table::told("one health check", check.as_secs_f64() * 1e6, " µs");
}

/// The medians of both calls, made in turns, so that whatever else the machine does meets both alike. The first
/// round warms up and does not count.
async fn compare(channel: Channel, hypervisors: usize, calls: usize) -> anyhow::Result<(Duration, Duration)> {
    let mut operations = OperationsServiceClient::new(channel.clone());
    let mut health = HealthClient::new(channel);
    let (mut lists, mut checks) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (mut list_times, mut check_times) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
        for _ in 0..calls {
            let begun = Instant::now();
            let list = operations
                .list_hypervisors(rpc::ListHypervisorsRequest {})
                .await
                .context("ListHypervisors failed")?;
            list_times.push(begun.elapsed());
            let listed = list.get_ref().hypervisors.len();
            ensure!(
                listed == hypervisors,
                "{listed} hypervisors are listed, not {hypervisors}"
            );

            let service = "operations.v1.OperationsService".to_owned();
            let begun = Instant::now();
            health
                .check(HealthCheckRequest { service })
                .await
                .context("the health check failed")?;
            check_times.push(begun.elapsed());
        }
        if round > 0 {
            lists.push(median(list_times));
            checks.push(median(check_times));
        }
    }
    Ok((median(lists), median(checks)))
}
