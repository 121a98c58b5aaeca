//! Backups are listed and worked on by the owner of the pool.

use super::*;

#[tokio::test]
async fn backups_are_listed_by_the_owner_or_it_is_said_why_not() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    let list = || async {
        let request = rpc::ListBackupsRequest { pool: "tank".into() };
        fleet.fleet("viewer").list_backups(request).await
    };
    let backup = |id: &str| agent_rpc::Backup {
        id: id.into(),
        bytes: GIB,
        ..Default::default()
    };
    agent.keep_backups(vec![backup("aaaa"), backup("bbbb")]);
    let listed = list().await.unwrap().into_inner();
    let ids: Vec<_> = listed.backups.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["aaaa", "bbbb"], "oldest first, as the owner says");
    agent.refuse("the repository /srv/backup is not there: mount it");
    let status = list().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "the repository /srv/backup is not there: mount it"
    );
    agent.kill();
    wait::until("the owner is gone", || async {
        (!fleet.pools().await[0].connected).then_some(())
    })
    .await;
    let status = list().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("h1"), "{status}");
}

#[tokio::test]
async fn the_verbs_of_backups_reach_the_owner_whole() {
    let (fleet, agent) = with_pool(Behaviour::Completes).await;
    let verify = rpc::VerifyBackupRequest {
        id: "latest".into(),
        read_percent: 10,
        ..Default::default()
    };
    let said = told(fleet.fleet("operator").verify_backup(verify).await).await;
    assert!(
        said[0]
            .1
            .contains("verify backup latest of tank, reading 10 % of the data back on host h1"),
        "{said:?}"
    );
    let restore = rpc::RestoreBackupRequest {
        id: "abcd".into(),
        target: "/srv/back".into(),
        paths: vec!["desktops/a".into(), "b".into()],
        ..Default::default()
    };
    let said = told(fleet.fleet("operator").restore_backup(restore).await).await;
    assert!(
        said[0]
            .1
            .contains("restore desktops/a and 1 other path of tank from backup abcd into /srv/back"),
        "{said:?}"
    );
    let delete = rpc::DeleteBackupRequest {
        id: "abcd".into(),
        ..Default::default()
    };
    let said = told(fleet.fleet("admin").delete_backup(delete.clone()).await).await;
    assert!(said[0].1.contains("delete backup abcd of tank"), "{said:?}");
    let status = refused(fleet.fleet("operator").delete_backup(delete).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut types: Vec<_> = agent
        .offers()
        .into_iter()
        .map(|offer| offer.request.unwrap().type_url)
        .collect();
    types.dedup(); // An offer may be repeated.
    let of_fleet = |name: &str| format!("type.googleapis.com/hostler.fleet.v1.{name}Request");
    assert_eq!(
        types,
        ["VerifyBackup", "RestoreBackup", "DeleteBackup"].map(of_fleet)
    );
    for (restore, word) in [
        (rpc::RestoreBackupRequest::default(), "not a backup's id"),
        (
            rpc::RestoreBackupRequest {
                id: "abcd".into(),
                ..Default::default()
            },
            "neither a target nor paths",
        ),
        (
            rpc::RestoreBackupRequest {
                id: "abcd".into(),
                paths: vec!["../x".into()],
                ..Default::default()
            },
            "../x",
        ),
        (
            rpc::RestoreBackupRequest {
                id: "abcd".into(),
                paths: vec!["x".repeat(4000); 100],
                ..Default::default()
            },
            "bytes; at most",
        ),
    ] {
        let status = refused(fleet.fleet("operator").restore_backup(restore).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(word), "{status}");
    }
}
