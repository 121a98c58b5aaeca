//! Storage pools and backups through a real coordinator over mTLS, with simulated agents: how they are called, and what
//! each stream keeps to.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

mod backups;
mod cancel;
mod owner;
mod pools;
mod progress;
mod queue;

use hostler_common::rpc::hostler::agent::v1 as agent_rpc;
use hostler_common::rpc::hostler::agent::v1::session_response::Message as FromCoordinator;
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::operations::v1 as operations;
use hostler_common::rpc::operations::v1::{HypervisorState, OperationState};
use hostler_tests::agent::{Behaviour, SIZE, SPARE, Setup, SimulatedAgent};
use hostler_tests::fleet::{Fleet, Message, Said, begun, collect};
use hostler_tests::wait;
use tonic::{Code, Response, Status, Streaming};

use OperationState::{Active, Completed, Failed, Scheduled};

const GIB: u64 = 1 << 30;

type Call<M> = Result<Response<Streaming<M>>, Status>;

/// The whole stream, which keeps the rules: words in each message, the end once and last.
async fn told<M: Message>(call: Call<M>) -> Vec<Said> {
    let said = collect(call.unwrap().into_inner()).await.unwrap();
    let (last, before) = said.split_last().unwrap();
    assert!(said.iter().all(|(_, msg)| !msg.is_empty()), "{said:?}");
    assert!(matches!(last.0, Completed | Failed), "{said:?}");
    let unended = |(state, _): &Said| matches!(state, Scheduled | Active);
    assert!(before.iter().all(unended), "{said:?}");
    said
}

fn refused<M>(call: Call<M>) -> Status {
    match call {
        Ok(_) => panic!("it was taken"),
        Err(status) => status,
    }
}

async fn expand(fleet: &Fleet, pool: &str, min_bytes: u64) -> Call<rpc::ExpandStorageResponse> {
    let request = rpc::ExpandStorageRequest {
        pool: pool.to_owned(),
        min_bytes,
        dry_run: false,
    };
    fleet.fleet("operator").expand_storage(request).await
}

async fn shrink(fleet: &Fleet, pool: &str, max_bytes: u64) -> Call<rpc::ShrinkStorageResponse> {
    let request = rpc::ShrinkStorageRequest {
        pool: pool.to_owned(),
        max_bytes,
        dry_run: false,
    };
    fleet.fleet("operator").shrink_storage(request).await
}

async fn cancel(fleet: &Fleet, id: &str, reason: &str) -> Result<rpc::Operation, Status> {
    let request = rpc::CancelOperationRequest {
        id: id.to_owned(),
        reason: reason.to_owned(),
    };
    let response = fleet.fleet("operator").cancel_operation(request).await?;
    Ok(response.into_inner().operation.unwrap())
}

async fn with_pool(behaviour: Behaviour) -> (Fleet, SimulatedAgent) {
    let fleet = Fleet::start().await;
    let agent = Setup::of("h1", &[])
        .pool("tank")
        .that(behaviour)
        .start(&fleet)
        .await;
    fleet.until_pool("tank").await;
    (fleet, agent)
}

fn size(pools: &[rpc::StoragePool]) -> u64 {
    pools[0].report.as_ref().unwrap().size_bytes
}

fn ended(said: &[Said]) -> (OperationState, &str) {
    let (state, msg) = said.last().unwrap();
    (*state, msg)
}
