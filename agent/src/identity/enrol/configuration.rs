//! The agent's configuration as an enrolment finds and leaves it.
//!
//! The invariant: nothing that a person wrote is changed. A file is written where there is none, and in one that is there only the
//! package's own placeholder for the coordinator is replaced; for all else a person is told what to change.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hostler_common::config::ConfigError;
use hostler_pki::{CoordinatorAddress, TlsFiles};
use thiserror::Error;

use super::place;
use super::told::Told;
use crate::config::AgentConfig;

/// What the package installs.
const PACKAGED: &str = include_str!("../../../../deploy/debian/agent.toml");
/// The line in it that no site can have meant.
const PLACEHOLDER: &str = "coordinator = \"coordinator.example.org:1312\"";
/// The coordinator of that line.
const NOBODY: &str = "coordinator.example.org";

/// Why the configuration is not fit.
#[derive(Debug, Error)]
pub enum ConfigurationError {
    /// It cannot be read, or is not valid.
    #[error("it must be good before a host is enrolled; nothing was sent")]
    Bad {
        /// Where and why.
        #[source]
        source: Box<ConfigError>,
    },
    /// It cannot be written.
    #[error("the certificate is in its place, but {} cannot be written; run the same command again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whether the file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It says what it said before.
    None,
    /// It names the coordinator now.
    Written,
}

/// What the configuration says about this host's identity.
#[derive(Debug)]
pub(super) struct Configuration {
    path: PathBuf,
    /// The file's text; the package's, when there is none.
    text: String,
    /// Where the coordinator is, if anybody has said.
    pub(super) coordinator: Option<CoordinatorAddress>,
    /// Where certificate, key and CA belong.
    pub(super) tls: TlsFiles,
    exists: bool,
}

impl Configuration {
    /// Reads `path`.
    ///
    /// # Errors
    /// When a file is there that the agent would not start with.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let bad = |source| ConfigurationError::Bad {
            source: Box::new(source),
        };
        let (text, exists) = match std::fs::read_to_string(path) {
            Ok(text) => (text, true),
            // A link that leads nowhere is somebody's mistake, and not a file that is to be made.
            Err(source) if source.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
                (PACKAGED.to_owned(), false)
            }
            Err(source) => {
                return Err(bad(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                }));
            }
        };
        let config: AgentConfig =
            hostler_common::config::parse(path, &text, AgentConfig::check).map_err(bad)?;
        Ok(Self {
            path: path.to_owned(),
            text,
            coordinator: Some(config.coordinator).filter(|named| named.host() != NOBODY),
            tls: config.tls,
            exists,
        })
    }

    /// Lets the file name where the coordinator is, unless it names one already.
    pub(super) fn name(&self, told: &Told, out: &mut impl Write) -> Result<Change, ConfigurationError> {
        let failed = |source| ConfigurationError::Write {
            path: self.path.clone(),
            source,
        };
        let path = self.path.display();
        let (said, change) = match (&self.coordinator, told.first()) {
            (Some(named), _) => (self.kept(named, told), Change::None),
            (None, Some(first)) if self.text.lines().any(|line| line.trim() == PLACEHOLDER) => {
                let named = format!("coordinator = \"{first}\"");
                place::put(&self.path, &self.text.replacen(PLACEHOLDER, &named, 1)).map_err(failed)?;
                let verb = if self.exists {
                    "names"
                } else {
                    "was made and names"
                };
                (format!("{path} {verb} {first}{}", told.why()), Change::Written)
            }
            (None, first) => {
                let where_to = first.map_or_else(
                    || "its address".to_owned(),
                    |first| format!("{first}{}", told.why()),
                );
                let said =
                    format!("{path} names no coordinator that exists: set `coordinator` there to {where_to}");
                (said, Change::None)
            }
        };
        writeln!(out, "configuration  {said}").map_err(failed)?;
        Ok(change)
    }

    /// What a person wrote stays.
    fn kept(&self, named: &CoordinatorAddress, told: &Told) -> String {
        let path = self.path.display();
        match told.advertised.is_empty() || told.advertised.contains(named) {
            true => format!("{path} names {named}, as before"),
            false => {
                let all: Vec<_> = told.advertised.iter().map(ToString::to_string).collect();
                format!(
                    "{path} names {named}, which was left; the coordinator says {}: change `coordinator` there if {named} does not work",
                    all.join(" or ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: Option<&str>, coordinator: &str) -> (String, String, Change) {
        named_as(
            text,
            &Told {
                advertised: vec![coordinator.parse().unwrap()],
                reached: Some("elsewhere.test:1312".parse().unwrap()),
            },
        )
    }

    fn named_as(text: Option<&str>, told: &Told) -> (String, String, Change) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/agent.toml");
        if let Some(text) = text {
            std::fs::create_dir_all(dir.path().join("etc")).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let mut said = Vec::new();
        let change = Configuration::read(&path).unwrap().name(told, &mut said).unwrap();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (text, String::from_utf8(said).unwrap(), change)
    }

    #[test]
    fn a_configuration_that_is_not_there_is_made_from_the_packages() {
        let (text, said, change) = named(None, "c1.fleet.test:1312");
        assert_eq!(change, Change::Written);
        assert!(text.contains("coordinator = \"c1.fleet.test:1312\"\n"), "{text}");
        assert!(said.contains("was made and names c1.fleet.test:1312"), "{said}");
    }

    #[test]
    fn in_the_packages_own_file_only_the_placeholder_is_replaced() {
        let mine = format!("# mine\n{PACKAGED}\n# and mine\n");
        let (text, _, change) = named(Some(&mine), "c1.fleet.test:1312");
        assert_eq!(change, Change::Written);
        let expected = mine.replace("coordinator.example.org:1312", "c1.fleet.test:1312");
        assert_eq!(text, expected);
    }

    #[test]
    fn what_a_person_wrote_stays_and_is_told() {
        let mine = PACKAGED.replace("coordinator.example.org:1312", "mine.test:7");
        let (text, said, change) = named(Some(&mine), "c1.fleet.test:1312");
        assert_eq!((text, change), (mine.clone(), Change::None));
        assert!(
            said.contains("mine.test:7") && said.contains("c1.fleet.test:1312"),
            "{said}"
        );
        let odd = PACKAGED.replace("coordinator = ", "coordinator   =   ");
        let (text, said, change) = named(Some(&odd), "c1.fleet.test:1312");
        assert_eq!((text, change), (odd.clone(), Change::None));
        assert!(said.contains("set `coordinator` there"), "{said}");
    }

    #[test]
    fn a_coordinator_that_advertises_nothing_is_named_by_where_it_was_reached_and_put_in_no_mouth() {
        let told = Told {
            advertised: Vec::new(),
            reached: Some("c1.fleet.test:7312".parse().unwrap()),
        };
        let (text, said, change) = named_as(None, &told);
        assert_eq!(change, Change::Written);
        assert!(text.contains("coordinator = \"c1.fleet.test:7312\"\n"), "{text}");
        assert!(said.contains("where it enrolled this host"), "{said}");
        let mine = PACKAGED.replace("coordinator.example.org:1312", "mine.test:7");
        let (text, said, change) = named_as(Some(&mine), &told);
        assert_eq!((text, change), (mine, Change::None));
        assert!(said.ends_with("names mine.test:7, as before\n"), "{said}");
    }

    #[test]
    fn a_configuration_that_the_agent_would_refuse_is_refused_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "coordinator = 5\n").unwrap();
        let nowhere = dir.path().join("link.toml");
        std::os::unix::fs::symlink("nowhere", &nowhere).unwrap();
        for path in [path, nowhere] {
            assert!(matches!(
                Configuration::read(&path),
                Err(ConfigurationError::Bad { .. })
            ));
        }
    }
}
