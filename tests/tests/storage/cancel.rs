//! What waits ends at once, what runs ends by its agent; neither is lost in a restart.

use super::*;

#[tokio::test]
async fn what_waits_is_cancelled_at_once_and_what_runs_by_its_agent() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, running) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let (_, waiting) = begun(shrink(&fleet, "tank", GIB).await).await;
    let history = fleet.history().await;
    let (waiting_id, running_id) = (&history[0].id, &history[1].id);
    let after = cancel(&fleet, waiting_id, "not\u{7} needed").await.unwrap();
    let words = "cancelled by spiffe://fleet.test/client/operator/test: not needed; it had not begun";
    assert_eq!((after.state(), after.message.as_str()), (Failed, words));
    assert_eq!(ended(&collect(waiting).await.unwrap()), (Failed, words));
    let again = cancel(&fleet, waiting_id, "").await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    assert!(again.message().contains("has ended"), "{again}");
    agent.behave(Behaviour::Ignores); // Which neither renews nor answers a cancel.
    for _ in 0..2 {
        let after = cancel(&fleet, running_id, "too slow").await.unwrap();
        assert_eq!(after.state(), Active);
        let asked = after.lease.unwrap().logs;
        let asked = asked
            .iter()
            .filter(|log| log.message.starts_with("cancel asked for by "));
        assert_eq!(asked.count(), 1, "the second says nothing new");
    }
    let told = agent
        .until("the cancel", |message| match message {
            FromCoordinator::Cancel(cancel) => Some(cancel.clone()),
            _ => None,
        })
        .await;
    assert_eq!(&told.operation_id, running_id);
    assert_eq!(told.by, "spiffe://fleet.test/client/operator/test: too slow");
    // The same request is another operation now.
    let (next, _) = begun(expand(&fleet, "tank", GIB).await).await;
    assert!(next.1.contains("waits for operation"), "{next:?}");
    agent.behave(Behaviour::Renews);
    let said = collect(running).await.unwrap();
    assert!(
        ended(&said).0 == Failed && ended(&said).1.starts_with("cancelled by spiffe://"),
        "{said:?}"
    );
    assert_eq!(size(&fleet.pools().await), SIZE);
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_is_said_to_be() {
    let (fleet, agent) = with_pool(Behaviour::Holds).await;
    let (_, stream) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let id = fleet.history().await[0].id.clone();
    cancel(&fleet, &id, "").await.unwrap();
    agent.behave(Behaviour::Completes);
    let said = collect(stream).await.unwrap();
    assert_eq!(
        ended(&said),
        (Completed, "done; it was done before it could be cancelled")
    );
}

#[tokio::test]
async fn a_cancel_is_refused_where_it_makes_no_sense() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let unknown = cancel(&fleet, "01900000-0000-7000-8000-000000000000", "").await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        cancel(&fleet, "x", "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let delete = rpc::DeleteBackupRequest {
        id: "abcd".into(),
        ..Default::default()
    };
    let (_, _stream) = begun(fleet.fleet("admin").delete_backup(delete).await).await;
    agent.until_holds(1).await;
    let id = fleet.history().await[0].id.clone();
    let status = cancel(&fleet, &id, "").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("its agent does not allow it"),
        "{status}"
    );
    let request = rpc::CancelOperationRequest {
        id,
        reason: String::new(),
    };
    let status = fleet.fleet("viewer").cancel_operation(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn pools_operations_and_cancels_survive_a_restart_of_the_coordinator() {
    let (mut fleet, agent) = with_pool(Behaviour::Holds).await;
    let (_, running) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let (_, waiting) = begun(shrink(&fleet, "tank", GIB).await).await;
    let history = fleet.history().await;
    cancel(&fleet, &history[1].id, "").await.unwrap();
    fleet.restart().await;
    for cut in [
        collect(running).await.unwrap_err(),
        collect(waiting).await.unwrap_err(),
    ] {
        assert_eq!(cut.code(), Code::Unavailable);
    }
    let pools = fleet.pools().await;
    assert_eq!(
        (pools.len(), size(&pools), pools[0].operation_ids.len()),
        (1, SIZE, 2)
    );
    let mut again = Setup::of("h1", &[]).pool("tank").that(Behaviour::Renews);
    again.token.clone_from(&agent.token);
    drop(agent);
    let _agent = again.start(&fleet).await;
    let request = rpc::WatchOperationRequest {
        id: history[1].id.clone(),
    };
    let said = told(fleet.fleet("viewer").watch_operation(request).await).await;
    assert!(
        ended(&said).0 == Failed && ended(&said).1.starts_with("cancelled by "),
        "the cancel is told again: {said:?}"
    );
    let (attached, _) = begun(shrink(&fleet, "tank", GIB).await).await;
    assert!(attached.1.starts_with("attached to operation "), "{attached:?}");
    assert_eq!(fleet.history().await.len(), 2);
}

#[tokio::test]
async fn a_burst_of_cancels_and_ends_leaves_the_pool_free_and_every_stream_with_one_end() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    for round in 0..5 {
        let mut streams = Vec::new();
        for bytes in 1..4 {
            streams.push(begun(expand(&fleet, "tank", 10 * round + bytes).await).await.1);
        }
        let unended = rpc::ListOperationsRequest {
            unended: true,
            ..Default::default()
        };
        let page = fleet.fleet("viewer").list_operations(unended).await.unwrap();
        let operations = page.into_inner().operations;
        if round % 2 == 0 {
            agent.behave(Behaviour::Completes);
        }
        for operation in &operations {
            // It may have ended meanwhile.
            match cancel(&fleet, &operation.id, "").await {
                Ok(_) => {}
                Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status}"),
            }
        }
        for stream in streams {
            let said = collect(stream).await.unwrap();
            let ends = said
                .iter()
                .filter(|(state, _)| matches!(state, Completed | Failed));
            assert_eq!(ends.count(), 1, "{said:?}");
        }
        agent.behave(Behaviour::Renews);
    }
    fleet.until_pool("tank").await;
}
