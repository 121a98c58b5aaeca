//! The one table of who may call what. What is not in it is refused before its handler, or its body, is seen.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, Join, Map, Ready, join, ready};
use hostler_common::throttle::Throttle;
use hostler_pki::Identity;
use hostler_pki::identity::{Role, Subject};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::listener::Peer;

/// Refused calls that are logged.
static REFUSALS: Throttle = Throttle::new(20, Duration::from_secs(10));

/// What an rpc asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Any valid identity.
    AnyIdentity,
    /// An agent.
    Agent,
    /// A client with at least this role.
    AtLeast(Role),
}

/// Every rpc that is served, by its path.
pub const TABLE: &[(&str, Needs)] = {
    use Needs::{Agent, AnyIdentity, AtLeast};
    use Role::{Admin, Operator, Viewer};
    &[
        (
            "/operations.v1.OperationsService/ListHypervisors",
            AtLeast(Viewer),
        ),
        (
            "/operations.v1.OperationsService/CreateHypervisor",
            AtLeast(Operator),
        ),
        (
            "/operations.v1.OperationsService/CreateHypervisors",
            AtLeast(Operator),
        ),
        (
            "/operations.v1.OperationsService/DestroyHypervisor",
            AtLeast(Operator),
        ),
        (
            "/operations.v1.OperationsService/DestroyHypervisors",
            AtLeast(Operator),
        ),
        (
            "/operations.v1.OperationsService/ExpandStorage",
            AtLeast(Operator),
        ),
        (
            "/operations.v1.OperationsService/ShrinkStorage",
            AtLeast(Operator),
        ),
        ("/operations.v1.OperationsService/CreateBackup", AtLeast(Operator)),
        ("/hostler.fleet.v1.FleetService/GetHypervisor", AtLeast(Viewer)),
        ("/hostler.fleet.v1.FleetService/WatchHypervisors", AtLeast(Viewer)),
        ("/hostler.fleet.v1.FleetService/ListOperations", AtLeast(Viewer)),
        ("/hostler.fleet.v1.FleetService/GetOperation", AtLeast(Viewer)),
        ("/hostler.fleet.v1.FleetService/WatchOperation", AtLeast(Viewer)),
        ("/hostler.fleet.v1.FleetService/ResolveOperation", AtLeast(Admin)),
        (
            "/hostler.fleet.v1.FleetService/CancelOperation",
            AtLeast(Operator),
        ),
        (
            "/hostler.fleet.v1.FleetService/ProposeOperation",
            AtLeast(Operator),
        ),
        ("/hostler.fleet.v1.FleetService/ListStoragePools", AtLeast(Viewer)),
        ("/hostler.fleet.v1.FleetService/ExpandStorage", AtLeast(Operator)),
        ("/hostler.fleet.v1.FleetService/ShrinkStorage", AtLeast(Operator)),
        ("/hostler.fleet.v1.FleetService/CreateBackup", AtLeast(Operator)),
        ("/hostler.fleet.v1.FleetService/ListBackups", AtLeast(Viewer)),
        ("/hostler.fleet.v1.FleetService/VerifyBackup", AtLeast(Operator)),
        ("/hostler.fleet.v1.FleetService/RestoreBackup", AtLeast(Operator)),
        ("/hostler.fleet.v1.FleetService/DeleteBackup", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/GetStatus", AtLeast(Viewer)),
        ("/hostler.site.v1.SiteService/ListAgents", AtLeast(Viewer)),
        ("/hostler.site.v1.SiteService/LoseAgent", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/ExpungeHypervisor", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/ExpungeStoragePool", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/CreateToken", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/ListTokens", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/RevokeToken", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/RevokeIdentity", AtLeast(Admin)),
        ("/hostler.site.v1.SiteService/ListRevocations", AtLeast(Viewer)),
        ("/hostler.site.v1.SiteService/ListAudit", AtLeast(Admin)),
        ("/hostler.agent.v1.AgentService/Session", Agent),
        ("/grpc.health.v1.Health/Check", AnyIdentity),
        ("/grpc.health.v1.Health/List", AnyIdentity),
        ("/grpc.health.v1.Health/Watch", AnyIdentity),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            AnyIdentity,
        ),
        (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            AnyIdentity,
        ),
    ]
};

/// Whether `identity` may call `path`.
///
/// # Errors
/// PERMISSION_DENIED naming what is needed; UNIMPLEMENTED for a path that is not in the table.
pub fn authorise(path: &str, identity: &Identity) -> Result<(), Status> {
    let Some((_, needs)) = TABLE.iter().find(|(known, _)| *known == path) else {
        return Err(Status::unimplemented("no such rpc here"));
    };
    let allowed = match (needs, &identity.subject) {
        (Needs::AnyIdentity, _) | (Needs::Agent, Subject::Agent { .. }) => true,
        (Needs::AtLeast(least), Subject::Client { role, .. }) => role >= least,
        (Needs::Agent, _) | (Needs::AtLeast(_), Subject::Agent { .. } | Subject::Coordinator { .. }) => false,
    };
    if allowed {
        return Ok(());
    }
    let needed = match needs {
        Needs::AnyIdentity => "a valid certificate".to_owned(),
        Needs::Agent => "the certificate of an agent".to_owned(),
        Needs::AtLeast(role) => format!("a client certificate with the role {role}"),
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    Err(Status::permission_denied(format!(
        "{name} needs {needed}; yours is {identity}"
    )))
}

/// Puts the table before every service.
#[derive(Debug, Clone, Copy)]
pub struct AuthzLayer;

impl<S> Layer<S> for AuthzLayer {
    type Service = Authz<S>;

    fn layer(&self, inner: S) -> Authz<S> {
        Authz { inner }
    }
}

/// A call, and its peer: the peer's connection counts as gone only when nobody works for it any more.
pub type Held<F> =
    Map<Join<F, Ready<Option<Peer>>>, fn((<F as Future>::Output, Option<Peer>)) -> <F as Future>::Output>;

/// A service behind the table.
#[derive(Debug, Clone)]
pub struct Authz<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Authz<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Held<S::Future>, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let verdict = match request.extensions().get::<Peer>() {
            Some(peer) => authorise(request.uri().path(), &peer.identity).inspect_err(|status| {
                if let Some(held_back) = REFUSALS.pass() {
                    tracing::warn!(peer = %peer.address, identity = %peer.identity, path = request.uri().path(),
                    reason = status.message(), held_back, "call refused");
                }
            }),
            None => Err(Status::unauthenticated("no client certificate")),
        };
        match verdict {
            Ok(()) => {
                let called = join(self.inner.call(request), ready(peer));
                Either::Left(called.map(|(answer, _peer)| answer))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use hostler_common::rpc::DESCRIPTORS;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    fn identities() -> Vec<(&'static str, Identity)> {
        [
            "coordinator/c",
            "agent/h",
            "client/viewer/v",
            "client/operator/o",
            "client/admin/a",
        ]
        .into_iter()
        .map(|path| (path, format!("spiffe://example.test/{path}").parse().unwrap()))
        .collect()
    }

    #[test]
    fn the_table_names_every_rpc_that_is_compiled() {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        for file in &files.file {
            // Served on a port of its own, to callers without a certificate.
            let services = file
                .service
                .iter()
                .filter(|_| file.package() != "hostler.enrol.v1");
            for service in services {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert!(
                        TABLE.iter().any(|(known, _)| *known == path),
                        "{path} is not in the table"
                    );
                }
            }
        }
    }

    /// Written out by hand, not derived from the table: c coordinator, a agent, v viewer, o operator, A admin.
    const MATRIX: &str = "
        ListHypervisors voA
        CreateHypervisor oA
        CreateHypervisors oA
        DestroyHypervisor oA
        DestroyHypervisors oA
        ExpandStorage oA
        ShrinkStorage oA
        CreateBackup oA
        GetHypervisor voA
        WatchHypervisors voA
        ListOperations voA
        GetOperation voA
        WatchOperation voA
        ResolveOperation A
        CancelOperation oA
        ProposeOperation oA
        ListStoragePools voA
        ExpandStorage oA
        ShrinkStorage oA
        CreateBackup oA
        ListBackups voA
        VerifyBackup oA
        RestoreBackup oA
        DeleteBackup A
        GetStatus voA
        ListAgents voA
        LoseAgent A
        ExpungeHypervisor A
        ExpungeStoragePool A
        CreateToken A
        ListTokens A
        RevokeToken A
        RevokeIdentity A
        ListRevocations voA
        ListAudit A
        Session a
        Check cavoA
        List cavoA
        Watch cavoA
        ServerReflectionInfo cavoA
        ServerReflectionInfo cavoA";

    #[test]
    fn every_rpc_meets_every_role_as_the_matrix_says() {
        let rows: Vec<_> = MATRIX
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(rows.len(), TABLE.len());
        for ((path, _), row) in TABLE.iter().zip(rows) {
            let (name, allowed) = row.split_once(' ').unwrap();
            assert!(
                path.ends_with(&format!("/{name}")),
                "{path} stands where {name} should"
            );
            for ((role, identity), letter) in identities().iter().zip("cavoA".chars()) {
                let verdict = authorise(path, identity).is_ok();
                assert_eq!(verdict, allowed.contains(letter), "{path} by {role}");
            }
        }
    }

    #[test]
    fn what_changes_something_needs_more_than_a_viewer() {
        for (path, needs) in TABLE {
            let name = path.rsplit('/').next().unwrap();
            let changes = [
                "Create", "Destroy", "Expand", "Shrink", "Resolve", "Cancel", "Verify", "Restore", "Delete",
                "Propose", "Lose", "Expunge", "Revoke",
            ]
            .iter()
            .any(|verb| name.starts_with(verb));
            assert!(
                !changes || matches!(needs, Needs::AtLeast(role) if *role > Role::Viewer),
                "{path}"
            );
        }
    }

    #[test]
    fn an_unknown_path_is_refused_for_everybody() {
        for (_, identity) in identities() {
            for path in [
                "/",
                "",
                "/operations.v1.OperationsService/",
                "/x.Y/Z",
                "//operations.v1.OperationsService/ListHypervisors",
            ] {
                assert_eq!(
                    authorise(path, &identity).unwrap_err().code(),
                    tonic::Code::Unimplemented
                );
            }
        }
    }
}
