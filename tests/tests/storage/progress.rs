//! What a stream says before its end: of which operation, how far, and what would be.

use super::*;

#[tokio::test]
async fn every_message_of_the_fleet_api_names_its_operation() {
    let (fleet, _agent) = with_pool(Behaviour::Completes).await;
    let mut stream = expand(&fleet, "", 1).await.unwrap().into_inner();
    let mut messages = 0;
    let id = fleet.history().await[0].id.clone();
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!(message.operation_id, id);
        messages += 1;
    }
    assert!(messages >= 2, "{messages}");
    let unknown = expand(&fleet, "nowhere", 1)
        .await
        .unwrap()
        .into_inner()
        .message()
        .await;
    assert_eq!(unknown.unwrap().unwrap().operation_id, "", "there is none");
}

#[tokio::test]
async fn a_dry_run_says_line_by_line_what_would_be_and_makes_no_operation() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, _running) = begun(expand(&fleet, "tank", GIB).await).await;
    let request = rpc::ShrinkStorageRequest {
        max_bytes: GIB,
        dry_run: true,
        ..Default::default()
    };
    let said = told(fleet.fleet("operator").shrink_storage(request.clone()).await).await;
    let expected = [
        (Active, "look at the devices".to_owned()),
        (Active, "use them".to_owned()),
        (Completed, "would shrink tank".to_owned()),
    ];
    assert_eq!(said, expected, "it waits for nobody");
    let delete = rpc::DeleteBackupRequest {
        id: "abcd".into(),
        dry_run: true,
        ..Default::default()
    };
    let said = told(fleet.fleet("admin").delete_backup(delete).await).await;
    assert_eq!(ended(&said), (Completed, "would delete a backup of tank"));
    agent.refuse("tank can give nothing: 90.00 GiB of 100.00 GiB are used");
    let said = told(fleet.fleet("operator").shrink_storage(request.clone()).await).await;
    assert_eq!(said.len(), 1);
    assert_eq!(
        ended(&said),
        (Failed, "tank can give nothing: 90.00 GiB of 100.00 GiB are used")
    );
    let nothing = rpc::ShrinkStorageRequest {
        max_bytes: 0,
        ..request.clone()
    };
    let status = refused(fleet.fleet("operator").shrink_storage(nothing).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(fleet.history().await.len(), 1, "only the expand");
    agent.kill();
    wait::until("the owner is gone", || async {
        (!fleet.pools().await[0].connected).then_some(())
    })
    .await;
    let said = told(fleet.fleet("operator").shrink_storage(request).await).await;
    assert!(
        ended(&said).0 == Failed && ended(&said).1.contains("h1 is not connected"),
        "{said:?}"
    );
}

#[tokio::test]
async fn measures_reach_every_stream_and_are_not_kept() {
    let (fleet, agent) = with_pool(Behaviour::Renews).await;
    let (_, mut of_fleet) = begun(expand(&fleet, "tank", GIB).await).await;
    agent.until_holds(1).await;
    let request = operations::ExpandStorageRequest { min_bytes: 1 << 30 };
    let (_, mut of_operations) = begun(fleet.operations("operator").expand_storage(request).await).await;
    let id = fleet.history().await[0].id.clone();
    let request = rpc::WatchOperationRequest { id: id.clone() };
    let call = fleet.fleet("viewer").watch_operation(request).await;
    let (_, mut watched) = begun(call).await;
    let measure = agent_rpc::Measure {
        what: "relocate /dev/sdb".into(),
        done_bytes: GIB / 4,
        total_bytes: GIB,
        bytes_per_second: 1 << 20,
        seconds_left: Some(60),
        ..Default::default()
    };
    let words = hostler_common::measure::text(&measure);
    agent.measure(&measure).await;
    loop {
        let message = of_fleet.message().await.unwrap().unwrap();
        if let Some(told) = &message.measure {
            assert_eq!(
                (told, &message.msg, &message.operation_id),
                (&measure, &words, &id)
            );
            assert_eq!(message.state(), Active);
            break;
        }
    }
    loop {
        let message = of_operations.message().await.unwrap().unwrap();
        assert_eq!(message.state(), Active);
        if message.msg == words {
            break;
        }
    }
    loop {
        let message = watched.message().await.unwrap().unwrap();
        if message.measure.is_some() {
            assert_eq!(
                (message.measure, message.msg),
                (Some(measure.clone()), words.clone())
            );
            break;
        }
    }
    // A flood becomes about one a second; none comes after the end.
    for _ in 0..200 {
        agent.measure(&measure).await;
    }
    agent.behave(Behaviour::Completes);
    let rest = collect(of_fleet).await.unwrap();
    assert!(
        rest.iter().filter(|(_, msg)| *msg == words).count() < 20,
        "{rest:?}"
    );
    assert_eq!(ended(&rest).0, Completed);
    let request = rpc::GetOperationRequest { id };
    let kept = fleet
        .fleet("viewer")
        .get_operation(request)
        .await
        .unwrap()
        .into_inner();
    let logs = kept.operation.unwrap().lease.unwrap().logs;
    assert!(logs.iter().all(|log| log.message != words), "{logs:?}");
}
