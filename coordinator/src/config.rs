//! `coordinator.toml`. Every key has a default but the certificates.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_common::config::{ConfigError, load, parse};
use hostler_common::id::PoolName;
use hostler_common::telemetry::LogFormat;
use hostler_common::units::duration_text;
use hostler_common::{DEFAULT_ENROL_PORT, DEFAULT_PORT};
use hostler_pki::{CoordinatorAddress, TlsFiles};
use serde::{Deserialize, Deserializer};

/// Longer than anybody waits or keeps, and short enough for every sum of durations and clocks.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The longest life of an agent's certificate. It renews itself; a long life only helps whoever steals it.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Addresses that are told to whoever enrols.
const ADVERTISED_AT_MOST: usize = 16;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients and agents connect.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where the store lies. Made when it is not there.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The storage pool of calls that name none. Without it: the only pool, or the one called `default`.
    #[serde(default, deserialize_with = "name_unless_empty")]
    pub default_pool: Option<PoolName>,
    /// How log lines look.
    #[serde(default)]
    pub log: LogFormat,
    /// The coordinator's certificate.
    pub tls: TlsFiles,
    /// Agents' sessions.
    #[serde(default)]
    pub sessions: SessionsConfig,
    /// Operations.
    #[serde(default)]
    pub operations: OperationsConfig,
    /// Certificates for agents. Without it nobody enrols and no certificate is renewed.
    #[serde(default)]
    pub enrolment: Option<EnrolmentConfig>,
    /// How long connections may take to end after SIGTERM. Streams are told at once; their operations go on.
    #[serde(default = "default_drain", with = "duration_text")]
    pub drain_timeout: Duration,
}

/// `[sessions]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// How often an agent is asked for a sign of life. It is gone after three without one.
    #[serde(with = "duration_text")]
    pub heartbeat: Duration,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
        }
    }
}

/// `[operations]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OperationsConfig {
    /// The lock of an agent on an operation that it runs, renewed at a third of it.
    #[serde(with = "duration_text")]
    pub lease: Duration,
    /// How often an operation is taken before it is given up.
    pub max_attempts: u32,
    /// How long a new operation waits for a host that is not connected.
    #[serde(with = "duration_text")]
    pub host_patience: Duration,
    /// How long a begun operation waits for its host to come back.
    #[serde(with = "duration_text")]
    pub resume_patience: Duration,
    /// How long an operation is offered to a connected agent that does not take it. An agent runs 32 at once.
    #[serde(with = "duration_text")]
    pub take_patience: Duration,
    /// Finished operations that are kept.
    pub keep_count: usize,
    /// How long finished operations are kept.
    #[serde(with = "duration_text")]
    pub keep_age: Duration,
}

impl Default for OperationsConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            max_attempts: 3,
            host_patience: Duration::from_secs(60),
            resume_patience: Duration::from_secs(600),
            take_patience: Duration::from_secs(3600),
            keep_count: 10_000,
            keep_age: Duration::from_secs(90 * 24 * 3600),
        }
    }
}

/// `[enrolment]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentConfig {
    /// Where hosts enrol.
    #[serde(default = "default_enrol_listen")]
    pub listen: SocketAddr,
    /// The directory of the CA that signs for agents: `ca.crt` and `ca.key`.
    pub ca_dir: PathBuf,
    /// The life of an agent's certificate.
    #[serde(default = "default_agent_life", with = "duration_text")]
    pub agent_life: Duration,
    /// Where hosts reach this coordinator, as HOST:PORT; told to whoever enrols.
    #[serde(default)]
    pub advertise: Vec<CoordinatorAddress>,
}

fn default_enrol_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, DEFAULT_ENROL_PORT).into()
}

fn default_agent_life() -> Duration {
    Duration::from_secs(90 * 86_400)
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into()
}

fn default_data_dir() -> PathBuf {
    "/var/lib/hostler-coordinator".into()
}

/// TOML has no null: an empty text stands for none.
fn name_unless_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PoolName>, D::Error> {
    let text = String::deserialize(from)?;
    let name = (!text.is_empty()).then(|| text.parse()).transpose();
    name.map_err(serde::de::Error::custom)
}

fn default_drain() -> Duration {
    Duration::from_secs(10)
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// With the file and what is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, Self::check)
    }

    /// The same of `text`, which `path` holds.
    ///
    /// # Errors
    /// As above.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        parse(path, text, Self::check)
    }

    fn check(&self) -> Result<(), String> {
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.sessions.heartbeat) {
            return Err("sessions.heartbeat is not between 100ms and 1m".to_owned());
        }
        if self.drain_timeout > Duration::from_secs(600) {
            return Err("drain_timeout is above 10m".to_owned());
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.operations.lease) {
            return Err("operations.lease is not between 1s and 1h".to_owned());
        }
        if self.operations.lease.subsec_nanos() != 0 {
            return Err("operations.lease is not in whole seconds".to_owned());
        }
        let operations = &self.operations;
        for (key, duration) in [
            ("host_patience", operations.host_patience),
            ("resume_patience", operations.resume_patience),
            ("take_patience", operations.take_patience),
            ("keep_age", operations.keep_age),
        ] {
            if duration > LONGEST {
                return Err(format!("operations.{key} is above 100 years"));
            }
        }
        if let Some(enrolment) = &self.enrolment {
            let life = enrolment.agent_life;
            if !(Duration::from_secs(1)..=LONGEST_LIFE).contains(&life) {
                return Err("enrolment.agent_life is not between 1s and 10 years".to_owned());
            }
            if enrolment.advertise.len() > ADVERTISED_AT_MOST {
                return Err(format!(
                    "enrolment.advertise has more than {ADVERTISED_AT_MOST} addresses"
                ));
            }
            if enrolment.listen == self.listen && enrolment.listen.port() != 0 {
                return Err("enrolment.listen is the same as listen: hosts without a certificate need a port of their own".to_owned());
            }
        }
        if self.operations.max_attempts == 0 {
            return Err("operations.max_attempts is 0: nothing would ever run".to_owned());
        }
        if self.operations.keep_count == 0 {
            return Err("operations.keep_count is 0: nobody could read how an operation ended".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TLS: &str = "[tls]\nca = '/c'\ncertificate = '/d'\nkey = '/k'\n";

    fn load_text(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path()).map_err(|error| hostler_common::error::Chain(&error).to_string())
    }

    #[test]
    fn a_short_file_gets_the_documented_defaults() {
        let config = load_text(TLS).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:1312");
        assert_eq!(config.operations.lease, Duration::from_secs(30));
        assert_eq!(config.default_pool, None);
    }

    #[test]
    fn the_default_pool_is_a_pool_name_or_empty() {
        let default_pool = |name: &str| load_text(&format!("default_pool = '{name}'\n{TLS}"));
        assert_eq!(default_pool("").unwrap().default_pool, None);
        assert_eq!(
            default_pool("tank").unwrap().default_pool,
            Some("tank".parse().unwrap())
        );
        let error = default_pool("../tank").unwrap_err();
        assert!(
            error.contains("default_pool") && error.contains("pool name"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_and_a_senseless_value_are_refused_by_name() {
        let unknown = load_text(&format!("lissten = '0.0.0.0:1'\n{TLS}")).unwrap_err();
        assert!(unknown.contains("lissten"), "{unknown}");
        for (text, name) in [
            ("[operations]\nlease = '0s'", "operations.lease"),
            ("[operations]\nlease = '1500ms'", "operations.lease"),
            ("[operations]\nmax_attempts = 0", "operations.max_attempts"),
            ("[operations]\nkeep_count = 0", "operations.keep_count"),
            (
                "[operations]\nhost_patience = '200000years'",
                "operations.host_patience",
            ),
            ("[operations]\nkeep_age = '101years'", "operations.keep_age"),
            ("[sessions]\nheartbeat = '1ms'", "sessions.heartbeat"),
            ("[sessions]\nheartbeat = '1h'", "sessions.heartbeat"),
            ("[sessions]\nheartbeat = 'soon'", "soon"),
        ] {
            let error = load_text(&format!("{TLS}{text}\n")).unwrap_err();
            assert!(error.contains(name), "{text}: {error}");
        }
    }
}
