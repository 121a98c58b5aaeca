//! A coordinator of a test, as far as identities go, and whom it knows.

use std::path::{Path, PathBuf};

use hostler_common::error::Chain;
use hostler_common::units::UnixMillis;
use hostler_coordinator::config::Config;
use hostler_coordinator::identity::Identities;
use hostler_coordinator::store::Store;
use hostler_pki::Identity;
use hostler_pki::ca::{Authority, DEFAULT_CA_LIFETIME, IssueOptions};
use hostler_pki::issued::Existing;
use tempfile::TempDir;
use tokio::task::JoinSet;

pub(crate) const CREATED: UnixMillis = UnixMillis(1_763_790_000_000);
pub(crate) const EXPIRES: UnixMillis = UnixMillis(1_763_793_600_000);
pub(crate) const BETWEEN: UnixMillis = UnixMillis(1_763_790_060_000);

/// A CA, a coordinator's certificate of it, and its configuration.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) config: Config,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let pki = dir.path().join("pki");
        let authority = Authority::init(&pki, "fleet.test".parse().unwrap(), DEFAULT_CA_LIFETIME).unwrap();
        let identity = "spiffe://fleet.test/coordinator/c1".parse().unwrap();
        let issued = authority.issue(&identity, &IssueOptions::default()).unwrap();
        issued.write(&pki, "c1", Existing::Keep).unwrap();
        let config = config(dir.path(), &pki);
        Self { dir, config }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("pki")
    }

    pub(crate) async fn start(&self, store: &Store) -> Result<Identities, String> {
        // What follows the store is not needed, and ends here.
        let mut tasks = JoinSet::new();
        let started = Identities::start(&self.config, store, &mut tasks).await;
        started.map_err(|error| Chain(&error).to_string())
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.dir.path().join("data")).unwrap()
    }
}

pub(crate) fn config(dir: &Path, ca_dir: &Path) -> Config {
    let pki = dir.join("pki");
    let text = format!(
        "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n[enrolment]\nca_dir = {:?}\nagent_life = '1h'\n",
        pki.join("ca.crt"),
        pki.join("c1.crt"),
        pki.join("c1.key"),
        ca_dir
    );
    Config::parse(Path::new("coordinator.toml"), &text).unwrap()
}

pub(crate) fn ada() -> Identity {
    "spiffe://fleet.test/client/admin/ada".parse().unwrap()
}

pub(crate) fn h1() -> Identity {
    "spiffe://fleet.test/agent/h1".parse().unwrap()
}
