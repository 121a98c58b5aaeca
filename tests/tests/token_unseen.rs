//! `hostler tokens create` into a place that takes nothing: the real client, and what is left of the token.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::fs::File;
use std::process::Stdio;

use hostler_common::rpc::hostler::site::v1::{ListTokensRequest, Token, TokenState};
use hostler_tests::fleet::Fleet;
use hostler_tests::programs::command;
use tokio::process::Command;

async fn create(fleet: &Fleet, arguments: &[&str], out: Stdio) -> (i32, String) {
    let files = fleet.ca.files("client/admin/test");
    let mut hostler = command("hostler");
    hostler
        .env("HOSTLER_COORDINATOR", fleet.address.to_string())
        .env("HOSTLER_CA", files.ca)
        .env("HOSTLER_CERT", files.certificate)
        .env("HOSTLER_KEY", files.key)
        .args(["tokens", "create", "--host", "h1"])
        .args(arguments)
        .stdout(out);
    let mut hostler = Command::from(hostler);
    let output = hostler
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

async fn tokens(fleet: &Fleet) -> Vec<Token> {
    let listed = fleet.site("admin").list_tokens(ListTokensRequest {}).await;
    listed.unwrap().into_inner().tokens
}

#[tokio::test]
async fn a_token_that_nobody_could_see_is_revoked() {
    let fleet = Fleet::start().await;
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for (count, (arguments, out)) in [(&[][..], full()), (&["--json"], full()), (&["--quiet"], closed())]
        .into_iter()
        .enumerate()
    {
        let (code, said) = create(&fleet, arguments, out).await;
        assert_eq!(code, 1, "{said}");
        let all = tokens(&fleet).await;
        assert_eq!(all.len(), count + 1);
        assert_eq!(all[0].state(), TokenState::Revoked, "{said}");
        assert!(
            said.contains(&all[0].id) && said.contains("was revoked"),
            "{said}"
        );
    }
    let (code, said) = create(&fleet, &[], Stdio::null()).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(tokens(&fleet).await[0].state(), TokenState::Open);
}
