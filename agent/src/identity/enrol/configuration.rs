//! The agent's configuration as an enrolment finds and leaves it.
//!
//! The invariant: nothing that a person wrote is changed. A file is written where there is none, and in one that is there only the
//! package's own placeholder for the coordinator is replaced; for all else a person is told what to change.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use hostler_common::config::ConfigError;
use hostler_pki::{CoordinatorAddress, TlsFiles};
use thiserror::Error;

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
            Err(source) if source.kind() == io::ErrorKind::NotFound => (PACKAGED.to_owned(), false),
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

    /// Lets the file name one of `coordinators`, unless it names one already.
    pub(super) fn name(
        &self,
        coordinators: &[CoordinatorAddress],
        out: &mut impl Write,
    ) -> Result<Change, ConfigurationError> {
        let path = self.path.display();
        let failed = |source| ConfigurationError::Write {
            path: self.path.clone(),
            source,
        };
        let all: Vec<_> = coordinators.iter().map(ToString::to_string).collect();
        let (said, change) = match (&self.coordinator, coordinators.first()) {
            (Some(named), _) if all.is_empty() || coordinators.contains(named) => {
                (format!("{path} names {named}, as before"), Change::None)
            }
            (Some(named), _) => (
                format!(
                    "{path} names {named}, which was left; the coordinator says {}: change `coordinator` there if {named} does not work",
                    all.join(" or ")
                ),
                Change::None,
            ),
            (None, Some(first)) if self.text.lines().any(|line| line.trim() == PLACEHOLDER) => {
                let text = self
                    .text
                    .replacen(PLACEHOLDER, &format!("coordinator = \"{first}\""), 1);
                write(&self.path, &text).map_err(failed)?;
                let verb = if self.exists {
                    "names"
                } else {
                    "was made and names"
                };
                (format!("{path} {verb} {first}"), Change::Written)
            }
            (None, _) => (
                format!(
                    "{path} names no coordinator that exists: set `coordinator` there to {}",
                    all.join(" or ")
                ),
                Change::None,
            ),
        };
        writeln!(out, "configuration  {said}").map_err(failed)?;
        Ok(change)
    }
}

/// Puts `text` in the place of `path`, whole and durable, with the owner and the mode that were there. Until it has them nobody
/// else can read it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".enrolled");
    let beside = PathBuf::from(name);
    // Of a try that died; it may be readable.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    let mode = match std::fs::metadata(path) {
        Ok(found) => {
            fchown(&file, Some(found.uid()), Some(found.gid()))?;
            found.permissions()
        }
        Err(_) => Permissions::from_mode(0o644),
    };
    file.set_permissions(mode)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: Option<&str>, coordinator: &str) -> (String, String, Change) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/agent.toml");
        if let Some(text) = text {
            std::fs::create_dir_all(dir.path().join("etc")).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let mut said = Vec::new();
        let change = Configuration::read(&path)
            .unwrap()
            .name(&[coordinator.parse().unwrap()], &mut said)
            .unwrap();
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
    fn a_configuration_that_the_agent_would_refuse_is_refused_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "coordinator = 5\n").unwrap();
        assert!(matches!(
            Configuration::read(&path),
            Err(ConfigurationError::Bad { .. })
        ));
    }
}
