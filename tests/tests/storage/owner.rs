//! The whole path with nothing simulated but the devices: coordinator, mTLS, the agent's session, journal, planner and
//! steps, and a pool in memory.

use std::time::Duration;

use hostler_common::bytes::Bytes;
use hostler_tests::owner::PoolOwner;

use super::*;

async fn owner(fleet: &Fleet) -> PoolOwner {
    let disk = Bytes(4 * GIB);
    let owner = PoolOwner::start(
        fleet,
        "h1",
        "tank",
        &[("a", disk), ("b", disk)],
        &[("c", disk), ("d", Bytes(2 * GIB))],
    );
    fleet.until_pool("tank").await;
    wait::until("the pool is looked at", || async {
        (size(fleet).await == 8 * GIB).then_some(())
    })
    .await;
    owner
}

async fn size(fleet: &Fleet) -> u64 {
    fleet.pools().await[0].report.as_ref().unwrap().size_bytes
}

async fn held(owner: &PoolOwner) {
    wait::until("the relocation begins", || async {
        owner.pool.wait_until_held(Duration::ZERO).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pool_in_memory_grows_by_the_least_excess_and_gives_back_what_it_can() {
    let fleet = Fleet::start().await;
    let owner = owner(&fleet).await;
    assert!(owner.pool.write("thesis", Bytes(GIB)));
    let before = owner.pool.contents();

    let dry = rpc::ExpandStorageRequest {
        pool: "tank".to_owned(),
        min_bytes: GIB,
        dry_run: true,
    };
    let said = told(fleet.fleet("operator").expand_storage(dry).await).await;
    assert!(said[0].1.contains("add device d"), "{said:?}");
    assert!(
        said.last().unwrap().1.contains("would grow by 2.00 GiB"),
        "{said:?}"
    );
    assert_eq!(size(&fleet).await, 8 * GIB, "a dry run changes nothing");

    let said = told(expand(&fleet, "tank", GIB).await).await;
    assert_eq!(said.last().unwrap().0, Completed, "{said:?}");
    assert_eq!(
        size(&fleet).await,
        10 * GIB,
        "who hears of the end finds the new size"
    );

    let said = told(expand(&fleet, "tank", 5 * GIB).await).await;
    assert_eq!(said.last().unwrap().0, Failed, "{said:?}");
    assert!(said.last().unwrap().1.contains("4.00 GiB"), "{said:?}");

    let said = told(shrink(&fleet, "tank", 4 * GIB).await).await;
    assert_eq!(said.last().unwrap().0, Completed, "{said:?}");
    assert_eq!(size(&fleet).await, 6 * GIB);
    assert_eq!(owner.pool.contents(), before);
}

#[tokio::test]
async fn a_relocation_is_cancelled_and_its_device_stays() {
    let fleet = Fleet::start().await;
    let owner = owner(&fleet).await;
    assert!(owner.pool.write("thesis", Bytes(3 * GIB)));
    let before = owner.pool.contents();
    owner.pool.close_gate();
    let mut stream = shrink(&fleet, "tank", 4 * GIB).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    held(&owner).await;
    cancel(&fleet, &first.operation_id, "not now").await.unwrap();
    let mut last = None;
    while let Some(said) = stream.message().await.unwrap() {
        last = Some(said);
    }
    owner.pool.open_gate();
    let last = last.unwrap();
    assert_eq!(last.state(), Failed, "{}", last.msg);
    assert!(last.msg.starts_with("cancelled by"), "{}", last.msg);
    assert_eq!(size(&fleet).await, 8 * GIB);
    assert_eq!(owner.pool.contents(), before);
}

#[tokio::test]
async fn an_agent_and_a_coordinator_that_end_in_the_middle_go_on() {
    let mut fleet = Fleet::start().await;
    let mut owner = owner(&fleet).await;
    assert!(owner.pool.write("thesis", Bytes(3 * GIB)));
    let before = owner.pool.contents();
    owner.pool.close_gate();
    let mut stream = shrink(&fleet, "tank", 4 * GIB).await.unwrap().into_inner();
    let id = stream.message().await.unwrap().unwrap().operation_id;
    held(&owner).await;
    fleet.restart().await;
    owner.pool.open_gate();
    owner.stop().await;
    owner.begin(&fleet);
    let operation = wait::until("the operation ends", || async {
        let request = rpc::GetOperationRequest { id: id.clone() };
        let got = fleet.fleet("viewer").get_operation(request).await.ok()?;
        let operation = got.into_inner().operation?;
        (operation.state() == Completed || operation.state() == Failed).then_some(operation)
    })
    .await;
    assert_eq!(operation.state(), Completed, "{}", operation.message);
    assert_eq!(size(&fleet).await, 4 * GIB);
    assert_eq!(owner.pool.contents(), before);
    owner.stop().await;
}
