//! The real programs as processes: built before, started here, killed as a test wants.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use hostler_pki::TlsFiles;
use tempfile::TempDir;

use crate::pki::TestCa;
use crate::wait;

/// Where cargo puts the programs: beside the folder of this test's own binary.
///
/// # Panics
/// When the program has not been built.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    // A test lies in PROFILE/deps, a program in PROFILE.
    let folders = test.ancestors().skip(1).take(2);
    let built = folders
        .map(|folder| folder.join(name))
        .find(|built| built.exists());
    built.unwrap_or_else(|| panic!("{name} is not built: cargo build --bins, or tests/run.sh"))
}

/// A command for a program, with the environment of this test but no settings of the user's.
#[allow(clippy::disallowed_methods)] // Tests start programs; the product does so in one place.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command
        .env_remove("HOSTLER_CONFIG")
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .stdin(Stdio::null());
    command
}

/// A process that ends with its test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `log`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log opens");
        let child = command
            .stdout(file.try_clone().expect("a handle"))
            .stderr(file)
            .spawn();
        Self {
            child: child.expect("the program starts"),
            log: log.to_owned(),
        }
    }

    /// What it has printed so far, and those of its log before it.
    pub fn printed(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its pid.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, at once.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it is reaped");
    }

    /// Sends a signal by name, as `TERM`.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[allow(clippy::disallowed_methods)] // The tests' only way to a signal without another dependency.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = std::sync::Mutex::new(&mut self.child);
        wait::until("the program ends", || async {
            child.lock().ok()?.try_wait().ok()?
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with certificates and configurations for one coordinator and one agent, as programs.
pub struct Site {
    /// The CA.
    pub ca: TestCa,
    /// Everything of the site.
    pub dir: TempDir,
    /// Where the coordinator listens.
    pub port: u16,
}

impl Site {
    /// A site with a free port.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn make() -> Self {
        let dir = TempDir::new().expect("a directory");
        let ca = TestCa::make(&dir.path().join("pki"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let site = Self { ca, dir, port };
        let text = format!(
            "listen = '127.0.0.1:{port}'\ndata_dir = '{}'\n{}[sessions]\nheartbeat = '500ms'\n[operations]\nlease = '2s'\n",
            site.path("data").display(),
            tls(&site.ca.files("coordinator/c1"))
        );
        site.write("coordinator.toml", &text);
        site
    }

    /// A path in the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the site.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    }

    /// Writes `agent.toml` for host `h1` on `libvirt` with these `[[hypervisor]]` tables.
    pub fn configure_agent(&self, libvirt: &str, hypervisors: &str) {
        let text = format!(
            "coordinator = '127.0.0.1:{}'\nstate_dir = '{}'\nrun_dir = '{}'\n{}[libvirt]\nuri = '{libvirt}'\n{hypervisors}",
            self.port,
            self.path("agent-state").display(),
            self.path("agent-run").display(),
            tls(&self.ca.files("agent/h1"))
        );
        self.write("agent.toml", &text);
    }

    /// Starts the coordinator.
    pub fn start_coordinator(&self) -> Process {
        let mut command = command("hostler-coordinator");
        command.arg("--config").arg(self.path("coordinator.toml"));
        Process::start(&mut command, &self.path("coordinator.log"))
    }

    /// Starts the coordinator and waits until it serves.
    pub async fn coordinator(&self) -> Process {
        let process = self.start_coordinator();
        let address = ("127.0.0.1", self.port);
        wait::until("the coordinator listens", || async {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        process
    }

    /// Starts the agent.
    pub fn agent(&self) -> Process {
        let mut command = command("hostler-agent");
        command.arg("--config").arg(self.path("agent.toml"));
        Process::start(&mut command, &self.path("agent.log"))
    }

    /// `hostler` with a role's certificate.
    pub fn hostler(&self, role: &str) -> Command {
        let files = self.ca.files(&format!("client/{role}/test"));
        let mut command = command("hostler");
        command
            .env("HOSTLER_COORDINATOR", format!("127.0.0.1:{}", self.port))
            .env("HOSTLER_CA", files.ca)
            .env("HOSTLER_CERT", files.certificate)
            .env("HOSTLER_KEY", files.key);
        command
    }

    /// Runs `hostler` to its end: exit code, standard output, standard error.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn run_hostler(&self, role: &str, arguments: &[&str]) -> (i32, String, String) {
        let mut command = tokio::process::Command::from(self.hostler(role));
        let output = command
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .expect("hostler runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// The state that `hostler hypervisors list` shows for `id`.
    pub async fn state(&self, id: &str) -> Option<String> {
        let (code, out, _) = self
            .run_hostler("viewer", &["--output", "json", "hypervisors", "list"])
            .await;
        let list: serde_json::Value = serde_json::from_str(&out).ok().filter(|_| code == 0)?;
        let all = list["hypervisors"].as_array()?;
        all.iter().find(|one| one["id"] == id)?["state"]
            .as_str()
            .map(str::to_owned)
    }

    /// Waits until `id` is listed with `state`, as `in_service`.
    pub async fn until_state(&self, id: &str, state: &str) {
        wait::until(&format!("{id} is {state}"), || async {
            (self.state(id).await.as_deref() == Some(state)).then_some(())
        })
        .await;
    }
}

/// The `[tls]` of a configuration.
pub fn tls(files: &TlsFiles) -> String {
    format!(
        "[tls]\nca = '{}'\ncertificate = '{}'\nkey = '{}'\n",
        files.ca.display(),
        files.certificate.display(),
        files.key.display()
    )
}
