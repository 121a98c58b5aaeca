//! A revoked certificate: refused inside the handshake, in words on both sides, and the next one is not.

#![allow(clippy::unwrap_used)] // as in any test; clippy does not see that helpers belong to one

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use hostler_common::units::UnixMillis;
use hostler_pki::ca::IssueOptions;
use hostler_pki::issued::Existing;
use hostler_pki::{
    About, ChannelOptions, CoordinatorAddress, Credentials, HandshakeError, Identity, PeerCertificate,
    Revocations, Subject, TrustBundle, accept, client_config, connect, explain_failed_handshake,
    peer_certificate, revocation, server_config,
};
use rustls::ServerConfig;
use support::{ADMIN, AGENT, COORDINATOR, DEADLINE, Fleet, words};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A list of one, as a coordinator keeps many.
#[derive(Clone, Default)]
struct Revoked(Arc<Mutex<Option<(Subject, UnixMillis)>>>);

impl Revoked {
    fn revoke(&self, identity: &str, at: UnixMillis) {
        let identity: Identity = identity.parse().unwrap();
        *self.0.lock().unwrap() = Some((identity.subject, at));
    }

    fn hook(&self) -> Revocations {
        let list = Arc::clone(&self.0);
        Revocations::new(move |subject, not_before| {
            let list = list.lock().unwrap();
            let (revoked, at) = list.as_ref()?;
            (revoked == subject && revocation::covers(*at, not_before)).then_some(*at)
        })
    }
}

type Seen = Result<PeerCertificate, HandshakeError>;

fn trusted(fleet: &Fleet) -> TrustBundle {
    TrustBundle::parse(&std::fs::read_to_string(fleet.files("x").ca).unwrap()).unwrap()
}

/// Serves handshakes; what came of each is told in its order.
async fn serve(
    config: Arc<ServerConfig>,
    trusted: TrustBundle,
) -> (CoordinatorAddress, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (tell, seen) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tell, config, trusted) = (tell.clone(), config.clone(), trusted.clone());
            tokio::spawn(async move {
                match accept(config, tcp, || {}).await {
                    Err(error) => tell.send(Err(error)).await.unwrap(),
                    Ok(mut stream) => {
                        tell.send(Ok(peer_certificate(stream.get_ref().1, &trusted).unwrap()))
                            .await
                            .unwrap();
                        // An HTTP/2 server speaks first: empty settings.
                        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    }
                }
            });
        }
    });
    (address, seen)
}

async fn call(
    address: &CoordinatorAddress,
    credentials: &Credentials,
    seen: &mut mpsc::Receiver<Seen>,
) -> (Result<(), (String, About)>, Result<PeerCertificate, String>) {
    let config = client_config(credentials).unwrap();
    let both = async {
        let called = connect(address, config, ChannelOptions::default()).await;
        let called = called.map(drop).map_err(|error| (words(&error), error.about()));
        let seen = seen.recv().await.unwrap();
        (called, seen.map_err(|error| error.to_string()))
    };
    tokio::time::timeout(DEADLINE, both)
        .await
        .expect("the call hangs")
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_in_the_handshake_and_both_sides_say_so() {
    let fleet = Fleet::new();
    let revoked = Revoked::default();
    let config = server_config(&fleet.credentials(COORDINATOR), revoked.hook()).unwrap();
    let (address, mut seen) = serve(config, trusted(&fleet)).await;
    for (who, way_out, logged_way_out) in [
        (AGENT, "hostler tokens create", "hostler tokens create"),
        (ADMIN, "a new certificate", "hostler-pki issue client"),
    ] {
        let files = fleet.issue(who);
        let credentials = Credentials::load(&files).unwrap();
        let (called, peer) = call(&address, &credentials, &mut seen).await;
        called.unwrap();
        let peer = peer.unwrap();
        assert_eq!(peer.identity.to_string(), who);
        assert_eq!(
            (peer.not_before, peer.not_after),
            (credentials.not_before(), credentials.not_after())
        );

        let at = UnixMillis::now();
        revoked.revoke(who, at);
        let (called, logged) = call(&address, &credentials, &mut seen).await;
        let (said, about) = called.unwrap_err();
        assert!(
            said.contains("has been revoked") && said.contains(way_out),
            "{said}"
        );
        assert_eq!(about, About::Certificate);
        let logged = logged.unwrap_err();
        assert!(
            logged.contains(&format!("its identity {who} was revoked at {at}")),
            "{logged}"
        );
        assert!(logged.contains(logged_way_out), "{logged}");
        // Somebody else is not meant.
        let (called, _) = call(
            &address,
            &fleet.credentials("spiffe://example.org/agent/node-2"),
            &mut seen,
        )
        .await;
        called.unwrap();

        // One that was signed afterwards as always still begins before it; one that follows it does not.
        let (called, _) = call(&address, &fleet.credentials(who), &mut seen).await;
        called.unwrap_err();
        let options = IssueOptions {
            after: Some(UnixMillis(at.0 - 3000)),
            ..IssueOptions::default()
        };
        revoked.revoke(who, UnixMillis(at.0 - 3000));
        let issued = fleet.authority.issue(&who.parse().unwrap(), &options).unwrap();
        issued.write(fleet.path(), "after", Existing::Replace).unwrap();
        let (called, _) = call(
            &address,
            &Credentials::load(&fleet.files("after")).unwrap(),
            &mut seen,
        )
        .await;
        called.unwrap();
    }
}

#[tokio::test]
async fn each_failed_handshake_is_explained_by_its_own_reason() {
    let fleet = Fleet::new();
    let revoked = Revoked::default();
    revoked.revoke(AGENT, UnixMillis::now());
    let config = server_config(&fleet.credentials(COORDINATOR), revoked.hook()).unwrap();
    let (address, mut seen) = serve(config, trusted(&fleet)).await;
    let agent = fleet.credentials(AGENT);
    let other = Fleet::new();
    for _ in 0..3 {
        let (_, logged) = call(&address, &agent, &mut seen).await;
        assert!(logged.unwrap_err().contains("was revoked at"));
        // Same name, another CA: the chain is judged first.
        let mut files = other.issue(AGENT);
        files.ca = other.path().join("both.crt");
        let ca = |fleet: &Fleet| std::fs::read_to_string(fleet.path().join("ca.crt")).unwrap();
        std::fs::write(&files.ca, ca(&other) + &ca(&fleet)).unwrap();
        let (called, logged) = call(&address, &Credentials::load(&files).unwrap(), &mut seen).await;
        assert!(
            called
                .unwrap_err()
                .0
                .contains("not signed by the coordinator's CA")
        );
        assert!(logged.unwrap_err().contains("not signed by the CA"));
    }
    // Without `accept` the log says less, and still the right thing.
    let plain = rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked);
    let logged = explain_failed_handshake(&io::Error::other(plain));
    assert!(logged.to_lowercase().contains("revoked"), "{logged}");
}
