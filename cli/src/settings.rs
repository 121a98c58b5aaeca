//! The settings: flags before environment before the configuration file. What is missing after all that is
//! an error that says every way to set it. Only [`load`] touches the world; the rest is pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum as _;
use hostler_common::config::{self, ConfigError};
use hostler_common::error::{Chain, excerpt};
use hostler_pki::{CoordinatorAddress, TlsFiles};
use serde::Deserialize;
use thiserror::Error;

use crate::arguments::{Flags, parse_timeout};
use crate::output::Format;

/// The environment, as one value.
pub(crate) type Environment = BTreeMap<String, OsString>;

/// Everything that is needed to reach the coordinator.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) coordinator: CoordinatorAddress,
    pub(crate) tls: TlsFiles,
    /// `None`: the command's own default.
    pub(crate) timeout: Option<Duration>,
    pub(crate) output: Format,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    coordinator: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    output: Option<String>,
    timeout: Option<String>,
}

/// Why the settings do not do.
#[derive(Debug, Error)]
pub(crate) enum SettingsError {
    /// The configuration file was not taken.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// Needed, and nowhere set.
    #[error("not set: {}", names(missing))]
    Missing {
        missing: Vec<Setting>,
        file: Option<PathBuf>,
    },
    /// A value that makes no sense.
    #[error("{origin} {:?} is not valid: {problem}", excerpt(value))]
    Value {
        origin: String,
        value: String,
        problem: String,
    },
}

impl SettingsError {
    /// What to do about it.
    pub(crate) fn way_out(&self) -> Option<String> {
        let Self::Missing { missing, file } = self else {
            return None;
        };
        let file = match file {
            Some(path) => path.display().to_string(),
            None => "the file that --config names".into(),
        };
        let ways = |setting: &Setting| {
            let Setting { name, placeholder } = setting;
            let variable = setting.variable();
            format!(
                "--{name} {placeholder}, {variable}={placeholder}, or {name} = \"{placeholder}\" in {file}"
            )
        };
        Some(missing.iter().map(ways).collect::<Vec<_>>().join("\n     "))
    }
}

fn names(settings: &[Setting]) -> String {
    settings
        .iter()
        .map(|setting| setting.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A setting's name, the same in all three places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    name: &'static str,
    placeholder: &'static str,
}

impl Setting {
    fn variable(&self) -> String {
        format!("HOSTLER_{}", self.name.to_uppercase())
    }
}

const COORDINATOR: Setting = Setting {
    name: "coordinator",
    placeholder: "HOST:PORT",
};
const CA: Setting = Setting {
    name: "ca",
    placeholder: "FILE",
};
const CERT: Setting = Setting {
    name: "cert",
    placeholder: "FILE",
};
const KEY: Setting = Setting {
    name: "key",
    placeholder: "FILE",
};
const OUTPUT: Setting = Setting {
    name: "output",
    placeholder: "table|json",
};
const TIMEOUT: Setting = Setting {
    name: "timeout",
    placeholder: "30s",
};
const CONFIG: Setting = Setting {
    name: "config",
    placeholder: "FILE",
};

/// Reads the configuration file, if there is one, and resolves.
///
/// # Errors
/// When a named file is missing, a value is senseless, or something needed is nowhere set.
pub(crate) fn load(flags: &Flags, environment: &Environment) -> Result<Settings, SettingsError> {
    let named = flags
        .config
        .clone()
        .or_else(|| variable(environment, CONFIG).map(PathBuf::from));
    let (path, file) = match named {
        Some(path) => {
            let file = config::load(&path, |_| Ok(()))?;
            (Some(path), file)
        }
        None => match default_path(environment) {
            // Only a file that is not there is as good as an empty one; one that cannot be read is an error.
            Some(path) if path.try_exists().unwrap_or(true) => {
                let file = config::load(&path, |_| Ok(()))?;
                (Some(path), file)
            }
            path => (path, File::default()),
        },
    };
    resolve(flags, environment, &file, path.as_deref())
}

/// `$XDG_CONFIG_HOME/hostler/config.toml`, else below `~/.config`. A relative XDG_CONFIG_HOME is ignored,
/// as the XDG base directory specification says.
fn default_path(environment: &Environment) -> Option<PathBuf> {
    let folder = |name| {
        environment
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(base.join("hostler").join("config.toml"))
}

/// A variable that is set and not empty.
fn variable(environment: &Environment, setting: Setting) -> Option<OsString> {
    environment
        .get(&setting.variable())
        .filter(|value| !value.is_empty())
        .cloned()
}

/// Flags before environment before file.
pub(crate) fn resolve(
    flags: &Flags,
    environment: &Environment,
    file: &File,
    path: Option<&Path>,
) -> Result<Settings, SettingsError> {
    let text = |setting: Setting, flag: Option<&String>, filed: Option<&String>| {
        if let Some(value) = flag {
            return Some((format!("--{}", setting.name), value.clone()));
        }
        if let Some(value) = variable(environment, setting) {
            return Some((setting.variable(), value.to_string_lossy().into_owned()));
        }
        filed.map(|value| (setting.name.to_owned(), value.clone()))
    };
    let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
    let file_of = |setting: Setting, flag: Option<&PathBuf>, filed: Option<&PathBuf>| {
        flag.cloned()
            .or_else(|| variable(environment, setting).map(PathBuf::from))
            .or_else(|| filed.map(|value| folder.join(value)))
    };

    let flag = flags.output.or(flags.json.then_some(Format::Json));
    let output = match (flag, text(OUTPUT, None, file.output.as_ref())) {
        (Some(format), _) => format,
        (None, Some((origin, value))) => {
            Format::from_str(&value, false).map_err(|_| SettingsError::Value {
                origin,
                value,
                problem: "use table or json".into(),
            })?
        }
        (None, None) => Format::Table,
    };
    let timeout = match (flags.timeout, text(TIMEOUT, None, file.timeout.as_ref())) {
        (Some(timeout), _) => Some(timeout),
        (None, Some((origin, value))) => {
            Some(parse_timeout(&value).map_err(|problem| SettingsError::Value {
                origin,
                value,
                problem,
            })?)
        }
        (None, None) => None,
    };
    let coordinator = text(COORDINATOR, flags.coordinator.as_ref(), file.coordinator.as_ref());
    let ca = file_of(CA, flags.ca.as_ref(), file.ca.as_ref());
    let certificate = file_of(CERT, flags.cert.as_ref(), file.cert.as_ref());
    let key = file_of(KEY, flags.key.as_ref(), file.key.as_ref());
    match (coordinator, ca, certificate, key) {
        (Some((origin, value)), Some(ca), Some(certificate), Some(key)) => {
            let coordinator = match value.parse::<CoordinatorAddress>() {
                Ok(address) => address,
                Err(error) => {
                    let problem = Chain(&error).to_string();
                    return Err(SettingsError::Value {
                        origin,
                        value,
                        problem,
                    });
                }
            };
            Ok(Settings {
                coordinator,
                tls: TlsFiles { ca, certificate, key },
                timeout,
                output,
            })
        }
        (coordinator, ca, certificate, key) => {
            let needed = [
                (COORDINATOR, coordinator.is_some()),
                (CA, ca.is_some()),
                (CERT, certificate.is_some()),
                (KEY, key.is_some()),
            ];
            let missing = needed
                .iter()
                .filter(|(_, set)| !set)
                .map(|(setting, _)| *setting)
                .collect();
            Err(SettingsError::Missing {
                missing,
                file: path.map(Path::to_owned),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect()
    }

    fn file(text: &str) -> File {
        toml::from_str(text).unwrap()
    }

    const ALL: &[(&str, &str)] = &[
        ("HOSTLER_COORDINATOR", "from-env:1"),
        ("HOSTLER_CA", "env-ca"),
        ("HOSTLER_CERT", "env-cert"),
        ("HOSTLER_KEY", "env-key"),
        ("HOSTLER_OUTPUT", "json"),
        ("HOSTLER_TIMEOUT", "5s"),
    ];

    const FILE: &str = r#"
        coordinator = "from-file:1"
        ca = "file-ca"
        cert = "/abs/file-cert"
        key = "file-key"
        output = "json"
        timeout = "7s"
    "#;

    #[test]
    fn flags_win_over_the_environment_which_wins_over_the_file() {
        let flags = Flags {
            coordinator: Some("from-flag:1".into()),
            ca: Some("flag-ca".into()),
            output: Some(Format::Table),
            timeout: Some(Duration::from_secs(1)),
            ..Flags::default()
        };
        let path = Path::new("/etc/h/config.toml");
        let settings = resolve(&flags, &environment(&ALL[..3]), &file(FILE), Some(path)).unwrap();
        assert_eq!(settings.coordinator.to_string(), "from-flag:1");
        assert_eq!(settings.tls.ca, Path::new("flag-ca"));
        assert_eq!(settings.tls.certificate, Path::new("env-cert"));
        assert_eq!(
            settings.tls.key,
            Path::new("/etc/h/file-key"),
            "relative to the file's folder"
        );
        assert_eq!(settings.output, Format::Table);
        assert_eq!(settings.timeout, Some(Duration::from_secs(1)));

        let short = Flags {
            json: true,
            ..Flags::default()
        };
        let settings = resolve(&short, &environment(&ALL[..4]), &File::default(), Some(path)).unwrap();
        assert_eq!(settings.output, Format::Json);

        let settings = resolve(&Flags::default(), &environment(ALL), &file(FILE), Some(path)).unwrap();
        assert_eq!(settings.coordinator.to_string(), "from-env:1");
        assert_eq!(settings.output, Format::Json);
        assert_eq!(settings.timeout, Some(Duration::from_secs(5)));

        let settings = resolve(&Flags::default(), &environment(&[]), &file(FILE), Some(path)).unwrap();
        assert_eq!(settings.coordinator.to_string(), "from-file:1");
        assert_eq!(settings.tls.certificate, Path::new("/abs/file-cert"));
        assert_eq!(settings.timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let mut variables = environment(ALL);
        variables.insert("HOSTLER_COORDINATOR".into(), OsString::new());
        let settings = resolve(&Flags::default(), &variables, &file(FILE), None).unwrap();
        assert_eq!(settings.coordinator.to_string(), "from-file:1");
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once_with_three_ways_to_set_it() {
        let error = resolve(
            &Flags::default(),
            &environment(&ALL[1..2]),
            &File::default(),
            Some(Path::new("/h/c.toml")),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "not set: coordinator, cert, key");
        let way_out = error.way_out().unwrap();
        assert!(
            way_out.starts_with(
                "--coordinator HOST:PORT, HOSTLER_COORDINATOR=HOST:PORT, or coordinator = \"HOST:PORT\" in /h/c.toml"
            ),
            "{way_out}"
        );
        assert_eq!(way_out.lines().count(), 3);
    }

    #[test]
    fn a_senseless_value_is_named_with_where_it_came_from() {
        for (name, value, expected) in [
            (
                "HOSTLER_OUTPUT",
                "xml",
                "HOSTLER_OUTPUT \"xml\" is not valid: use table or json",
            ),
            (
                "HOSTLER_TIMEOUT",
                "0s",
                "HOSTLER_TIMEOUT \"0s\" is not valid: must be longer than zero",
            ),
            (
                "HOSTLER_COORDINATOR",
                "http://x",
                "HOSTLER_COORDINATOR \"http://x\" is not valid: ",
            ),
        ] {
            let mut variables = environment(ALL);
            variables.insert(name.into(), value.into());
            let error = resolve(&Flags::default(), &variables, &File::default(), None).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<File>("coordinater = 'x'").unwrap_err();
        assert!(error.to_string().contains("coordinater"), "{error}");
    }

    #[test]
    fn a_missing_default_file_is_fine_and_a_missing_named_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let mut variables = environment(ALL);
        variables.insert("XDG_CONFIG_HOME".into(), home.path().into());
        assert!(load(&Flags::default(), &variables).is_ok());

        let named = home.path().join("named.toml");
        let flags = Flags {
            config: Some(named.clone()),
            ..Flags::default()
        };
        let error = load(&flags, &variables).unwrap_err().to_string();
        assert!(error.contains(&named.display().to_string()), "{error}");

        std::fs::create_dir(home.path().join("hostler")).unwrap();
        std::fs::write(home.path().join("hostler/config.toml"), "output = 'table'").unwrap();
        variables.remove("HOSTLER_OUTPUT");
        assert_eq!(load(&Flags::default(), &variables).unwrap().output, Format::Table);
    }

    #[test]
    fn the_default_file_lies_in_xdg_config_home_or_below_home() {
        let path = |pairs| default_path(&environment(pairs));
        assert_eq!(
            path(&[("HOME", "/h")]),
            Some("/h/.config/hostler/config.toml".into())
        );
        assert_eq!(
            path(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]),
            Some("/x/hostler/config.toml".into())
        );
        assert_eq!(
            path(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")]),
            Some("/h/.config/hostler/config.toml".into())
        );
        assert_eq!(path(&[]), None);
    }
}
