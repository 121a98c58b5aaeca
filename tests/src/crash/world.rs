//! One world: a coordinator, an agent, a hypervisor whose activation takes its time, perhaps a pool. It is hit as
//! told, and what was hit is started again.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::client::Client;
use super::round::{Blow, Has, How, Victim};
use super::tally::Tally;
use super::trap::Trap;
use crate::pool::{Backups, Checksums, LoopPool};
use crate::programs::{Process, Site, command};

/// How often an operation may be taken.
pub const ATTEMPTS: u32 = 6;
/// A paused agent sleeps for so much longer than its lease.
const OVERSLEEPS: Duration = Duration::from_millis(700);

/// The activation. A lock tells when two run at once, whoever was killed: the kernel frees it with its holder.
const ACTIVATION: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 9
if [ "$1" = status ]; then
  test -e active
  exit
fi
exec 9>>turn
if ! flock --nonblock 9; then
  echo "$1 began while another one ran" >>overlaps
  exit 1
fi
echo "$1" >>turns
part=0
while [ $part -lt "$(cat parts)" ]; do
  sleep 0.05 9>&-
  part=$((part + 1))
done
if [ -e "broken-$1" ]; then
  # It did what it should, and says that it did not.
  case $1 in
  start) touch active ;;
  stop) rm -f active ;;
  esac
  echo "$1 is broken"
  exit 1
fi
case $1 in
start) touch active ;;
stop) rm -f active ;;
esac
"#;

/// libvirt's test driver without any domain: what runs there would hold up a destroy.
const LIBVIRT: &str = "<node>
  <network><name>default</name><bridge name='virbr7'/><ip address='192.168.77.1' netmask='255.255.255.0'/></network>
  <pool type='dir'><name>default-pool</name><target><path>/default-pool</path></target></pool>
</node>
";

/// Ports below those that the kernel hands out to clients: a coordinator must get its own again.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// How a world is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// What it has.
    pub has: Has,
    /// The agent's lease, in seconds.
    pub lease: u64,
    /// More lines of the coordinator's `[operations]`.
    pub operations: &'static str,
}

impl Setting {
    /// For kills at random moments.
    pub fn random(has: Has) -> Self {
        Self {
            has,
            lease: 2,
            operations: "",
        }
    }
}

/// A running world.
pub struct World {
    /// Its files. The processes below end before them.
    pub site: Site,
    /// Its pool.
    pub pool: Option<LoopPool>,
    /// Who calls.
    pub client: Client,
    /// The pool's files as they should be.
    pub files: Checksums,
    /// The coordinator's points.
    pub coordinator_trap: Trap,
    /// The agent's points.
    pub agent_trap: Trap,
    setting: Setting,
    coordinator: Option<Process>,
    agent: Option<Process>,
}

/// A program that ended though nobody killed it.
pub type Fallen = Vec<&'static str>;

impl World {
    /// Makes a world and starts its programs.
    ///
    /// # Errors
    /// As [`World::make`].
    pub fn begin(setting: Setting) -> anyhow::Result<Self> {
        let mut world = Self::make(setting)?;
        world.start();
        Ok(world)
    }

    /// Makes a world in which nothing runs yet.
    ///
    /// # Errors
    /// When a certificate or a configuration cannot be made.
    ///
    /// # Panics
    /// When the machine does not let a pool be made.
    pub fn make(setting: Setting) -> anyhow::Result<Self> {
        let Setting {
            has,
            lease,
            operations,
        } = setting;
        let mut site = Site::make();
        site.port = free_port();
        let files = site.ca.files("coordinator/c1");
        site.write(
            "coordinator.toml",
            &format!(
                "listen = '127.0.0.1:{}'\ndata_dir = '{}'\n[tls]\nca = '{}'\ncertificate = '{}'\nkey = '{}'\n\
                 [sessions]\nheartbeat = '200ms'\n[operations]\nlease = '{lease}s'\nmax_attempts = {ATTEMPTS}\n{operations}",
                site.port,
                site.path("data").display(),
                files.ca.display(),
                files.certificate.display(),
                files.key.display()
            ),
        );
        let script = site.write("activation.sh", ACTIVATION);
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        site.write("parts", "1");
        let driver = site.write("libvirt.xml", LIBVIRT);
        let script = script.display();
        let mut tables = String::new();
        let pool = (has == Has::HypervisorAndPool).then(make_pool);
        if let Some(pool) = &pool {
            tables.push_str(&pool.configuration(Backups::Yes));
        }
        tables.push_str(&format!(
            "[[hypervisor]]\nid = 'hv1'\nkind = 'host'\nnetworks = [{{ name = 'default' }}]\n\
             pools = [{{ name = 'default-pool' }}]\nactivation_timeout = '60s'\n\
             activation = {{ type = 'exec', start = ['{script}', 'start'], stop = ['{script}', 'stop'], \
             status = ['{script}', 'status'] }}\n"
        ));
        site.configure_agent(&format!("test://{}", driver.display()), &tables);
        let files = pool.as_ref().map(LoopPool::checksums).unwrap_or_default();
        Ok(Self {
            client: Client::of(&site)?,
            coordinator_trap: Trap::make(site.path("failpoints/coordinator")),
            agent_trap: Trap::make(site.path("failpoints/agent")),
            setting,
            coordinator: None,
            agent: None,
            site,
            pool,
            files,
        })
    }

    /// The pids of its programs.
    pub fn pids(&self) -> Vec<u32> {
        let programs = [&self.coordinator, &self.agent];
        programs.into_iter().flatten().map(Process::id).collect()
    }

    /// SIGCONT to the agent.
    pub fn continue_agent(&self) {
        if let Some(agent) = &self.agent {
            agent.signal("CONT");
        }
    }

    /// Programs that nobody killed and that run no longer.
    pub fn fallen(&mut self) -> Fallen {
        let mut fallen = Fallen::new();
        let programs = [("coordinator", &mut self.coordinator), ("agent", &mut self.agent)];
        for (name, program) in programs {
            if !program.as_mut().is_some_and(Process::is_running) {
                fallen.push(name);
            }
        }
        fallen
    }

    /// Strikes, and starts again what was killed.
    pub async fn strike(&mut self, blow: &Blow, when: &'static str, tally: &mut Tally) {
        match blow.how {
            How::Pause => {
                tally.count("blows", "agent stopped for longer than its lease, then continued");
                if let Some(agent) = &self.agent {
                    agent.signal("STOP");
                    tokio::time::sleep(Duration::from_secs(self.setting.lease) + OVERSLEEPS).await;
                    agent.signal("CONT");
                }
            }
            How::Kill { away, again } => {
                self.kill(blow.victim, when, tally);
                tokio::time::sleep(away).await;
                self.start();
                if let Some(again) = again {
                    tokio::time::sleep(again).await;
                    self.kill(blow.victim, "while it started", tally);
                    self.start();
                }
            }
        }
    }

    /// SIGKILL; nothing is started again.
    pub fn kill(&mut self, victim: Victim, when: &'static str, tally: &mut Tally) {
        if victim != Victim::Agent
            && let Some(coordinator) = self.coordinator.take()
        {
            coordinator.kill();
            tally.kills += 1;
            tally.count("kills by program", "coordinator");
            tally.count("kills by moment", when);
        }
        if victim != Victim::Coordinator
            && let Some(agent) = self.agent.take()
        {
            agent.kill();
            tally.kills += 1;
            tally.count("kills by program", "agent");
            tally.count("kills by moment", when);
        }
    }

    /// Starts what does not run.
    pub fn start(&mut self) {
        self.start_coordinator();
        let site = &self.site;
        let trap = &self.agent_trap;
        self.agent.get_or_insert_with(|| start(site, "agent", trap));
    }

    /// Starts the coordinator alone.
    pub fn start_coordinator(&mut self) {
        let site = &self.site;
        let trap = &self.coordinator_trap;
        self.coordinator
            .get_or_insert_with(|| start(site, "coordinator", trap));
    }

    /// Starts again what ended at its armed point. True when something did.
    pub fn revive(&mut self, tally: &mut Tally) -> bool {
        let programs = [
            ("coordinator", &mut self.coordinator, &self.coordinator_trap),
            ("agent", &mut self.agent, &self.agent_trap),
        ];
        for (name, program, trap) in programs {
            if trap.fell() && program.as_mut().is_some_and(|program| !program.is_running()) {
                trap.disarm();
                *program = Some(start(&self.site, name, trap));
                tally.kills += 1;
                tally.count("kills by program", name);
                return true;
            }
        }
        false
    }
}

fn start(site: &Site, program: &str, trap: &Trap) -> Process {
    let mut command = command(&format!("hostler-{program}"));
    command.arg("--config").arg(site.path(&format!("{program}.toml")));
    Process::start(trap.under(&mut command), &site.path(&format!("{program}.log")))
}

/// One device that stays, two that come and go, and some files.
fn make_pool() -> LoopPool {
    let pool = LoopPool::make(&[320], &[180, 240]);
    pool.init_repository();
    pool.fill("desktops", &[6_000, 4_000, 1, 0]);
    pool
}

fn free_port() -> u16 {
    let process = u16::try_from(std::process::id() % 300).unwrap_or_default() * 20;
    loop {
        let port = 25_000 + process + NEXT_PORT.fetch_add(1, Ordering::Relaxed) % 1000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
