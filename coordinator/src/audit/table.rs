//! Which rpcs only look. Everything else is in the log, so that no new rpc can be forgotten.

/// What changes nothing. Of these only refusals are written. What agents do in a session is in the operations' logs.
const READS: &[&str] = &[
    "/operations.v1.OperationsService/ListHypervisors",
    "/hostler.fleet.v1.FleetService/GetHypervisor",
    "/hostler.fleet.v1.FleetService/WatchHypervisors",
    "/hostler.fleet.v1.FleetService/ListOperations",
    "/hostler.fleet.v1.FleetService/GetOperation",
    "/hostler.fleet.v1.FleetService/WatchOperation",
    "/hostler.fleet.v1.FleetService/ListStoragePools",
    "/hostler.fleet.v1.FleetService/ListBackups",
    "/hostler.site.v1.SiteService/GetStatus",
    "/hostler.site.v1.SiteService/ListAgents",
    "/hostler.site.v1.SiteService/ListTokens",
    "/hostler.site.v1.SiteService/ListRevocations",
    "/hostler.site.v1.SiteService/ListAudit",
    "/hostler.agent.v1.AgentService/Session",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Whether `path` changes something, as far as is known.
pub fn changes(path: &str) -> bool {
    !READS.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authz::TABLE;

    #[test]
    fn every_rpc_that_is_not_a_read_is_audited() {
        let reads = ["Get", "List", "Watch", "Session", "Check", "ServerReflectionInfo"];
        for (path, _) in TABLE {
            let name = path.rsplit('/').next().unwrap();
            let is_read = reads.iter().any(|verb| name.starts_with(verb));
            assert_eq!(changes(path), !is_read, "{path}");
        }
        assert!(changes("/hostler.site.v1.SiteService/SomethingNew"));
    }

    #[test]
    fn every_read_is_an_rpc() {
        for read in READS {
            assert!(TABLE.iter().any(|(path, _)| path == read), "{read}");
        }
    }
}
