//! The storage pools of the fleet: reading them, and which of them is meant by a call that names none.
//!
//! Invariant: an enrolled pool is always listed, also when its owner is away or no longer reports it.

use hostler_common::id::{HostName, PoolName};
use thiserror::Error;

use super::pool_view::{Naming, PoolView};
use super::{Fleet, PoolRecord, Registry};

/// The pool that is the default one among several when the configuration names none.
const DEFAULT_NAME: &str = "default";

/// Names that a sentence lists.
const NAMED_AT_MOST: usize = 8;

/// Why a call that names no pool means none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoDefaultPool {
    /// No pool is enrolled.
    #[error("no storage pool is configured: no agent has a [storage] section")]
    None,
    /// Several are, and none is the default.
    #[error(
        "there are several storage pools ({names}): name one, or set default_pool in the coordinator's configuration"
    )]
    Several {
        /// Their names, some of them when there are many.
        names: String,
    },
    /// The configured one is not enrolled.
    #[error(
        "the default_pool {pool} of the coordinator's configuration is not enrolled: no agent has reported it; its host's [storage] section must name it"
    )]
    NotEnrolled {
        /// Its name.
        pool: PoolName,
    },
}

impl Registry {
    /// One pool as stored.
    pub fn pool_record(&self, name: &PoolName) -> Option<PoolRecord> {
        self.read(|fleet| fleet.pools.get(name).map(|held| held.value.clone()))
    }

    /// How many pools are enrolled under `host`.
    pub fn count_pools_of(&self, host: &HostName) -> usize {
        self.read(|fleet| {
            let pools = fleet.pools.values();
            pools.filter(|held| held.value.host == *host).count()
        })
    }

    /// Reads one pool as clients see it.
    pub fn pool<T>(&self, name: &PoolName, read: impl FnOnce(&PoolView<'_>) -> T) -> Option<T> {
        self.read(|fleet| {
            let held = fleet.pools.get(name)?;
            Some(read(&self.view(fleet, &held.value)))
        })
    }

    /// Maps every pool, ordered by name.
    pub fn map_pools<T>(&self, map: impl Fn(&PoolView<'_>) -> T) -> Vec<T> {
        self.read(|fleet| {
            let all = fleet.pools.values();
            all.map(|held| map(&self.view(fleet, &held.value))).collect()
        })
    }

    /// The pool that is meant by a call that names none: the configured one, else the only one, else the one that is
    /// called `default`.
    ///
    /// # Errors
    /// With a sentence that says what to do, when there is none.
    pub fn default_pool(&self) -> Result<PoolName, NoDefaultPool> {
        self.read(|fleet| match default_of(fleet, self.configured_default()) {
            Some(name) => Ok(name.clone()),
            None => Err(no_default(fleet, self.configured_default())),
        })
    }

    fn configured_default(&self) -> Option<&PoolName> {
        self.default_pool.as_ref().as_ref()
    }

    fn view<'a>(&self, fleet: &'a Fleet, record: &'a PoolRecord) -> PoolView<'a> {
        let naming = match default_of(fleet, self.configured_default()) {
            Some(name) if *name == record.name => Naming::Default,
            Some(_) | None => Naming::Named,
        };
        PoolView::of(fleet, record, naming)
    }

    pub(super) fn pools_of(&self, host: &HostName) -> Vec<PoolName> {
        self.read(|fleet| {
            let of_host = fleet.pools.values().filter(|held| held.value.host == *host);
            of_host.map(|held| held.value.name.clone()).collect()
        })
    }
}

fn default_of<'a>(fleet: &'a Fleet, configured: Option<&PoolName>) -> Option<&'a PoolName> {
    let mut names = fleet.pools.keys();
    match configured {
        Some(configured) => names.find(|name| *name == configured),
        None if fleet.pools.len() == 1 => names.next(),
        None => names.find(|name| name.as_str() == DEFAULT_NAME),
    }
}

fn no_default(fleet: &Fleet, configured: Option<&PoolName>) -> NoDefaultPool {
    if let Some(pool) = configured {
        return NoDefaultPool::NotEnrolled { pool: pool.clone() };
    }
    if fleet.pools.is_empty() {
        return NoDefaultPool::None;
    }
    let mut names: Vec<_> = fleet
        .pools
        .keys()
        .take(NAMED_AT_MOST)
        .map(ToString::to_string)
        .collect();
    if fleet.pools.len() > NAMED_AT_MOST {
        names.push("…".to_owned());
    }
    let names = names.join(", ");
    NoDefaultPool::Several { names }
}

#[cfg(test)]
mod tests {
    use hostler_common::rpc::hostler::agent::v1::PoolReport;
    use hostler_common::units::UnixMillis;

    use super::super::Held;
    use super::*;
    use crate::store::Revision;

    fn fleet(names: &[&str]) -> Fleet {
        let mut fleet = Fleet::default();
        for name in names {
            let name: PoolName = name.parse().unwrap();
            let value = PoolRecord {
                name: name.clone(),
                host: "a".parse().unwrap(),
                report: PoolReport::default(),
                enrolled_at: UnixMillis(1),
                changed_at: UnixMillis(1),
            };
            let modified = Revision(1);
            fleet.pools.insert(name, Held { value, modified });
        }
        fleet
    }

    fn registry(names: &[&str], configured: Option<&str>) -> Registry {
        let registry = Registry::new(configured.map(|name| name.parse().unwrap()));
        registry.write(|current| *current = fleet(names));
        registry
    }

    #[test]
    fn a_call_without_a_pool_means_the_configured_the_only_or_the_default_one() {
        for (names, configured, meant) in [
            (vec!["tank"], None, "tank"),
            (vec!["default", "tank"], None, "default"),
            (vec!["default", "tank"], Some("tank"), "tank"),
        ] {
            let registry = registry(&names, configured);
            assert_eq!(registry.default_pool(), Ok(meant.parse().unwrap()));
            let defaults = registry.map_pools(|view| view.to_rpc().is_default);
            let expected: Vec<_> = names.iter().map(|name| *name == meant).collect();
            assert_eq!(defaults, expected);
        }
    }

    #[test]
    fn a_call_without_a_pool_is_told_why_none_is_meant() {
        let why = |names: &[&str], configured| {
            registry(names, configured)
                .default_pool()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            why(&[], None),
            "no storage pool is configured: no agent has a [storage] section"
        );
        let several = why(&["a", "b"], None);
        assert!(
            several.starts_with("there are several storage pools (a, b): "),
            "{several}"
        );
        let many: Vec<String> = (0..1000).map(|number| format!("pool{number}")).collect();
        let many = why(&many.iter().map(String::as_str).collect::<Vec<_>>(), None);
        assert!(many.len() < 250 && many.contains(", …)"), "{many}");
        let absent = why(&["a"], Some("b"));
        assert!(
            absent.contains("default_pool b"),
            "the only one is not meant by a wrong name: {absent}"
        );
    }
}
