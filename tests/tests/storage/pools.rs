//! Which pool is meant, what it becomes, and what is said when nothing can be done with it.

use super::*;

#[tokio::test]
async fn a_pool_is_expanded_and_shrunk_by_both_apis_and_the_list_follows() {
    let (fleet, _agent) = with_pool(Behaviour::Completes).await;
    let pools = fleet.pools().await;
    assert_eq!(
        (pools.len(), pools[0].host.as_str(), size(&pools)),
        (1, "h1", SIZE)
    );
    assert!(pools[0].is_default && pools[0].connected);
    let said = told(expand(&fleet, "tank", GIB).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert_eq!(
        size(&fleet.pools().await),
        SIZE + GIB,
        "who hears the end sees it listed"
    );
    assert_eq!(said[0].0, Scheduled);
    assert!(
        said[0].1.contains("expand tank by at least 1.00 GiB on host h1"),
        "{said:?}"
    );
    let mut operator = fleet.operations("operator");
    let request = operations::ShrinkStorageRequest {
        max_bytes: 1_000_000_000,
    };
    let said = told(operator.shrink_storage(request).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert!(
        said[0].1.contains("shrink tank by at most 953.67 MiB"),
        "{said:?}"
    );
    assert_eq!(size(&fleet.pools().await), SIZE + GIB - 1_000_000_000);
    let said = told(operator.create_backup(operations::CreateBackupRequest {}).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert!(said[0].1.contains("back up tank on host h1"), "{said:?}");
    let backups = fleet
        .fleet("viewer")
        .list_backups(rpc::ListBackupsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let history = fleet.history().await;
    assert_eq!((backups.pool.as_str(), backups.backups.len()), ("tank", 1));
    assert_eq!(backups.backups[0].operation_id, history[0].id);
    let kinds: Vec<_> = history.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["CreateBackup", "ShrinkStorage", "ExpandStorage"]);
    let of_pool = rpc::ListOperationsRequest {
        resource: "tank".into(),
        ..Default::default()
    };
    let page = fleet.fleet("viewer").list_operations(of_pool).await.unwrap();
    assert_eq!(page.into_inner().operations.len(), 3);
}

#[tokio::test]
async fn amounts_that_make_no_sense_are_refused_by_their_field() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    for bytes in [0, -1, i32::MIN] {
        let request = operations::ExpandStorageRequest { min_bytes: bytes };
        let status = refused(fleet.operations("operator").expand_storage(request).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains(&format!("min_bytes is {bytes}")),
            "{status}"
        );
        let request = operations::ShrinkStorageRequest { max_bytes: bytes };
        let status = refused(fleet.operations("operator").shrink_storage(request).await);
        assert!(status.message().contains("max_bytes"), "{status}");
    }
    let status = refused(expand(&fleet, "tank", 0).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    for pool in ["../tank", "-x", "a b"] {
        let status = refused(expand(&fleet, pool, 1).await);
        assert_eq!(status.code(), Code::InvalidArgument, "{pool}");
    }
    assert!(fleet.history().await.is_empty());
    // What is too much is for the owner to say.
    agent.behave(Behaviour::Fails("tank can grow by 50.00 GiB".into()));
    for said in [
        told(expand(&fleet, "tank", u64::MAX).await).await,
        told(expand(&fleet, "tank", SPARE + 1).await).await,
        told(shrink(&fleet, "tank", u64::MAX).await).await,
        told(
            fleet
                .operations("operator")
                .expand_storage(operations::ExpandStorageRequest { min_bytes: i32::MAX })
                .await,
        )
        .await,
    ] {
        assert_eq!(ended(&said), (Failed, "tank can grow by 50.00 GiB"));
    }
    let offered = agent.offers();
    let request = hostler_common::operation::Request::of(offered[0].request.as_ref().unwrap()).unwrap();
    let most = hostler_common::bytes::Bytes(u64::MAX);
    assert_eq!(
        request,
        hostler_common::operation::Request::ExpandStorage { min: most }
    );
}

#[tokio::test]
async fn a_pool_that_is_not_there_is_a_streamed_failure_with_a_way_out() {
    let fleet = Fleet::start().await;
    let said = told(expand(&fleet, "", 1).await).await;
    assert!(
        ended(&said).1.starts_with("no storage pool is configured"),
        "{said:?}"
    );
    let _one = Setup::of("h1", &[]).pool("a").start(&fleet).await;
    let _two = Setup::of("h2", &[]).pool("b").start(&fleet).await;
    fleet.until_pool("a").await;
    fleet.until_pool("b").await;
    let said = told(expand(&fleet, "nowhere", 1).await).await;
    assert!(
        ended(&said).1.contains("no storage pool nowhere") && ended(&said).1.contains("hostler storage list"),
        "{said:?}"
    );
    let said = told(
        fleet
            .operations("operator")
            .create_backup(operations::CreateBackupRequest {})
            .await,
    )
    .await;
    assert_eq!(ended(&said).0, Failed);
    assert!(ended(&said).1.contains("(a, b)"), "{said:?}");
    assert!(fleet.history().await.is_empty(), "nothing was begun");
    let said = told(expand(&fleet, "b", 1).await).await;
    assert_eq!(ended(&said).0, Completed);
    for (pool, word) in [("", "several"), ("nowhere", "nowhere")] {
        let request = rpc::ListBackupsRequest { pool: pool.into() };
        let status = fleet.fleet("viewer").list_backups(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains(word), "{status}");
    }
}

#[tokio::test]
async fn the_configured_pool_is_meant_among_several() {
    let fleet = Fleet::start_with(|config| config.default_pool = Some("b".parse().unwrap())).await;
    let _one = Setup::of("h1", &[]).pool("a").start(&fleet).await;
    let two = Setup::of("h2", &[]).pool("b").start(&fleet).await;
    fleet.until_pool("a").await;
    fleet.until_pool("b").await;
    let request = operations::ExpandStorageRequest { min_bytes: 7 };
    let said = told(fleet.operations("operator").expand_storage(request).await).await;
    assert_eq!(ended(&said).0, Completed);
    assert_eq!(two.offers()[0].resource, "b");
}

#[tokio::test]
async fn an_owner_that_stays_away_fails_the_operation_in_words_and_the_pool_stays_listed() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    agent.kill();
    wait::until("the owner is gone", || async {
        (!fleet.pools().await[0].connected).then_some(())
    })
    .await;
    let said = told(expand(&fleet, "tank", GIB).await).await;
    assert!(
        said.iter()
            .any(|(state, msg)| *state == Scheduled && msg.contains("not connected")),
        "{said:?}"
    );
    assert!(
        ended(&said).0 == Failed && ended(&said).1.contains("host h1"),
        "{said:?}"
    );
    let pools = fleet.pools().await;
    assert_eq!(size(&pools), SIZE, "the last figures stay");
    assert!(pools[0].reason.contains("not connected"), "{}", pools[0].reason);
}
