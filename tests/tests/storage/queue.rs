//! The same request attaches, another waits for its turn, and nothing else waits with it.

use super::*;

#[tokio::test]
async fn the_same_request_attaches_and_another_waits_for_its_turn() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, first) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    // By the other API, and without the pool's name: it asks for the same.
    let request = operations::ExpandStorageRequest { min_bytes: 1 << 30 };
    let (same, attached) = begun(fleet.operations("operator").expand_storage(request).await).await;
    assert!(
        same.1.starts_with("attached to operation ") && same.1.contains("is under way"),
        "{same:?}"
    );
    let (other, second) = begun(expand(&fleet, "tank", 2 * GIB).await).await;
    assert!(
        other.0 == Scheduled && other.1.contains("waits for operation"),
        "{other:?}"
    );
    let (third, backup) = begun(
        fleet
            .fleet("operator")
            .create_backup(rpc::CreateBackupRequest::default())
            .await,
    )
    .await;
    assert!(third.1.contains("waits for operation"), "{third:?}");
    assert_eq!(fleet.history().await.len(), 3, "one operation serves two calls");
    let listed = fleet.pools().await;
    assert_eq!(listed[0].operation_ids.len(), 3);
    assert!(!listed[0].reason.is_empty(), "it is busy");
    agent.behave(Behaviour::Completes);
    assert_eq!(ended(&collect(first).await.unwrap()).0, Completed);
    assert_eq!(ended(&collect(attached).await.unwrap()).0, Completed);
    assert_eq!(ended(&collect(second).await.unwrap()).0, Completed);
    assert_eq!(ended(&collect(backup).await.unwrap()).0, Completed);
    assert_eq!(size(&fleet.pools().await), SIZE + 3 * GIB, "each was done once");
    let again = told(expand(&fleet, "tank", GIB).await).await;
    assert_eq!(ended(&again).0, Completed);
    assert_eq!(
        size(&fleet.pools().await),
        SIZE + 4 * GIB,
        "what has ended is no longer attached to"
    );
}

#[tokio::test]
async fn hypervisors_go_on_while_a_pool_is_busy() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let _other = Setup::of("h2", &["hv2"]).start(&fleet).await;
    let (_, stream) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    fleet.until_state("hv2", HypervisorState::AvailableToCreate).await;
    assert_eq!(ended(&fleet.create("hv2").await.unwrap()).0, Completed);
    agent.behave(Behaviour::Completes);
    assert_eq!(ended(&collect(stream).await.unwrap()).0, Completed);
}

#[tokio::test]
async fn an_operation_that_needs_attention_bars_its_pool_until_somebody_has_looked() {
    let (fleet, _agent) = with_pool(Behaviour::NeedsAttention).await;
    let said = told(expand(&fleet, "tank", GIB).await).await;
    assert!(ended(&said).1.contains("tank needs attention"), "{said:?}");
    let said = told(shrink(&fleet, "tank", GIB).await).await;
    assert!(
        said.len() == 1 && said[0].1.contains("operations resolve"),
        "{said:?}"
    );
    let pools = fleet.pools().await;
    assert!(pools[0].reason.contains("needs attention"), "{}", pools[0].reason);
    let request = rpc::ResolveOperationRequest {
        id: fleet.history().await[0].id.clone(),
        note: "looked".into(),
    };
    fleet.fleet("admin").resolve_operation(request).await.unwrap();
    fleet.until_pool("tank").await;
}

#[tokio::test]
async fn of_many_calls_at_once_each_amount_is_one_operation_and_the_queue_is_bounded() {
    let (fleet, agent) = with_pool(Behaviour::Ignores).await;
    let operator = fleet.fleet("operator");
    let call = |min_bytes| {
        let mut operator = operator.clone();
        let request = rpc::ExpandStorageRequest {
            min_bytes,
            ..Default::default()
        };
        tokio::spawn(async move { begun(operator.expand_storage(request).await).await })
    };
    let same: Vec<_> = (0..10).map(|_| call(7)).collect();
    let mut streams = Vec::new();
    for call in same {
        streams.push(call.await.unwrap());
    }
    assert_eq!(fleet.history().await.len(), 1, "all of them follow one");
    let others: Vec<_> = (100..120).map(call).collect();
    let mut busy = 0;
    for call in others {
        let (first, stream) = call.await.unwrap();
        match first {
            (Failed, msg) => {
                assert!(msg.contains("tank is busy: 16 operations wait on it"), "{msg}");
                busy += 1;
            }
            queued => streams.push((queued, stream)),
        }
    }
    assert_eq!((busy, fleet.history().await.len()), (5, 16));
    let asked: u64 = fleet
        .history()
        .await
        .iter()
        .map(|operation| {
            let request = operation
                .lease
                .as_ref()
                .unwrap()
                .operation_request
                .as_ref()
                .unwrap();
            match hostler_common::operation::Request::of(request).unwrap() {
                hostler_common::operation::Request::ExpandStorage { min } => min.0,
                other => panic!("{other:?}"),
            }
        })
        .sum();
    agent.behave(Behaviour::Completes);
    for (_, stream) in streams {
        assert_eq!(ended(&collect(stream).await.unwrap()).0, Completed);
    }
    assert_eq!(size(&fleet.pools().await), SIZE + asked, "each was done once");
}
