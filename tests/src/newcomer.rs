//! A host that enrols with the real `hostler-agent enrol`, as far as it goes without systemd. Its files lie in a directory of its own.

use std::path::PathBuf;
use std::process::Command;

use hostler_common::rpc::hostler::site::v1::CreateTokenRequest;
use hostler_pki::{CoordinatorAddress, TlsFiles};
use tempfile::TempDir;

use crate::fleet::Fleet;
use crate::programs::{command, tls};

/// Makes a token as an admin does.
///
/// # Panics
/// When the coordinator makes none.
pub async fn make_token(fleet: &Fleet, host: &str) -> String {
    let request = CreateTokenRequest {
        host: host.to_owned(),
        expires_seconds: 0,
    };
    let made = fleet.site("admin").create_token(request).await;
    made.expect("a token").into_inner().token
}

/// A host that has the package and nothing else.
pub struct Newcomer {
    /// Everything of it.
    pub dir: TempDir,
}

impl Newcomer {
    /// With the package's own placeholder for the coordinator.
    ///
    /// # Panics
    /// When the directory cannot be written.
    pub fn make() -> Self {
        let host = Self {
            dir: TempDir::new().expect("a directory"),
        };
        host.configure(&format!(
            "coordinator = \"coordinator.example.org:1312\"\nstate_dir = '{}'\n{}",
            host.dir.path().join("state").display(),
            tls(&host.tls())
        ));
        host
    }

    /// Where certificate, key and CA belong.
    pub fn identity(&self) -> PathBuf {
        self.dir.path().join("identity")
    }

    /// The same as files.
    pub fn tls(&self) -> TlsFiles {
        let certificate = self.identity().join("agent.pem");
        TlsFiles {
            ca: self.identity().join("ca.crt"),
            key: certificate.clone(),
            certificate,
        }
    }

    /// Writes its configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.dir.path().join("agent.toml"), text).expect("the configuration is written");
    }

    /// Its configuration.
    ///
    /// # Panics
    /// When it is not there.
    pub fn config(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.toml")).expect("a configuration")
    }

    /// The names of what lies where its identity belongs.
    pub fn files(&self) -> Vec<String> {
        let found = std::fs::read_dir(self.identity()).into_iter().flatten().flatten();
        let mut names: Vec<_> = found
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// One of those files.
    ///
    /// # Panics
    /// When it is not there.
    pub fn content(&self, name: &str) -> String {
        std::fs::read_to_string(self.identity().join(name)).expect("the file")
    }

    /// The command that enrols it.
    ///
    /// # Panics
    /// When the token's file cannot be written.
    pub fn command(&self, at: &CoordinatorAddress, token: &str, wait: &str) -> Command {
        let file = self.dir.path().join("token");
        std::fs::write(&file, token).expect("the token is written");
        let mut command = command("hostler-agent");
        command
            .args(["enrol", "--no-start", "--wait", wait, "--coordinator"])
            .arg(at.to_string())
            .arg("--token-file")
            .arg(file)
            .arg("--config")
            .arg(self.dir.path().join("agent.toml"));
        command
    }

    /// Enrols it: the exit code (-1 for a signal), and what was said.
    ///
    /// # Panics
    /// When the program does not run.
    pub async fn enrol(&self, fleet: &Fleet, token: &str) -> (i32, String) {
        Self::run(self.command(&fleet.enrol_at(), token, "30s")).await
    }

    /// The same with a command of its own.
    ///
    /// # Panics
    /// When the program does not run.
    pub async fn run(command: Command) -> (i32, String) {
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await.expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout) + &text(&output.stderr),
        )
    }
}
