//! One world: a coordinator, an agent, a hypervisor whose activation takes its time, perhaps a pool. It is hit as
//! told, and what was hit is started again.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::client::Client;
use super::round::{Blow, Has, How, Victim};
use super::tally::Tally;
use crate::pool::{Backups, Checksums, LoopPool};
use crate::programs::{Process, Site};

/// The agent's lease, in seconds.
pub const LEASE: u64 = 2;
/// How often an operation may be taken.
pub const ATTEMPTS: u32 = 6;
/// A paused agent sleeps for longer than its lease.
const PAUSE: Duration = Duration::from_millis(LEASE * 1000 + 700);

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
    coordinator: Option<Process>,
    agent: Option<Process>,
}

/// A program that ended though nobody killed it.
pub type Fallen = Vec<&'static str>;

impl World {
    /// Makes a world and starts its programs.
    ///
    /// # Errors
    /// When a certificate or a configuration cannot be made.
    ///
    /// # Panics
    /// When the machine does not let a pool be made.
    pub fn begin(has: Has) -> anyhow::Result<Self> {
        let mut site = Site::make();
        site.port = free_port();
        let files = site.ca.files("coordinator/c1");
        site.write(
            "coordinator.toml",
            &format!(
                "listen = '127.0.0.1:{}'\ndata_dir = '{}'\n[tls]\nca = '{}'\ncertificate = '{}'\nkey = '{}'\n\
                 [sessions]\nheartbeat = '200ms'\n[operations]\nlease = '{LEASE}s'\nmax_attempts = {ATTEMPTS}\n",
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
            coordinator: Some(site.start_coordinator()),
            agent: Some(site.agent()),
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
                    tokio::time::sleep(PAUSE).await;
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

    fn kill(&mut self, victim: Victim, when: &'static str, tally: &mut Tally) {
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

    fn start(&mut self) {
        let site = &self.site;
        self.coordinator.get_or_insert_with(|| site.start_coordinator());
        self.agent.get_or_insert_with(|| site.agent());
    }
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
