//! The role table over the wire: every rpc is called with every kind of certificate.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::time::Duration;

use hostler_coordinator::api::authz::{TABLE, authorise};
use hostler_tests::fleet::Fleet;
use hostler_tests::pki::TRUST_DOMAIN;
use hostler_tests::raw::send;
use tonic::Code;

#[tokio::test]
async fn every_rpc_refuses_every_role_that_the_table_does_not_name() {
    let fleet = Fleet::start().await;
    for role in [
        "agent/h1",
        "client/viewer/v",
        "client/operator/o",
        "client/admin/a",
    ] {
        let identity = format!("spiffe://{TRUST_DOMAIN}/{role}").parse().unwrap();
        let channel = fleet.channel(role);
        for (path, _) in TABLE {
            // A watch or a session that is let in says nothing at first: silence is not a refusal.
            let call = send(channel.clone(), path, Vec::new());
            let answer = tokio::time::timeout(Duration::from_millis(300), call)
                .await
                .unwrap_or(Ok(()));
            let refused = answer
                .err()
                .is_some_and(|status| status.code() == Code::PermissionDenied);
            assert_eq!(refused, authorise(path, &identity).is_err(), "{path} by {role}");
        }
    }
}
