//! Clocks that are set by an hour, or go ten percent off, while leases and locks run: nothing is freed early and
//! nothing is held for long. Certificates are refused in both directions.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::collections::BTreeSet;
use std::process::Output;

use hostler_common::rpc::hostler::fleet::v1 as rpc;
use hostler_common::rpc::hostler::fleet::v1::fleet_service_client::FleetServiceClient;
use hostler_common::rpc::n0stack::protobuf::ProposeOperationRequest;
use hostler_common::rpc::operations::v1::OperationState::{Active, Completed};
use hostler_pki::{ChannelOptions, Credentials};
use hostler_tests::clock::{Clock, DAY, Faked, HOUR};
use hostler_tests::programs::{Process, Site, command};
use hostler_tests::wait;
use tonic::transport::Channel;

/// Far from both ends of the certificates, which are made now and valid for a year.
const NOON: i64 = 30 * DAY;

/// A coordinator and an agent, each on its own clock, and a create that waits for the file `go`.
struct World {
    site: Site,
    fleet: FleetServiceClient<Channel>,
    coordinators: Clock,
    agents: Clock,
    faked: Faked,
    coordinator: Option<Process>,
    agent: Option<Process>,
}

impl World {
    async fn begin(faked: Faked) -> Self {
        let site = Site::make();
        let script = site.write(
            "activation.sh",
            "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 9\ncase $1 in\nstart) echo start >>turns; while [ ! -e go ]; do sleep 0.05; done; touch active ;;\nstop) rm -f active ;;\nstatus) test -e active ;;\nesac\n",
        );
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let script = script.display();
        let hypervisors = format!(
            "[[hypervisor]]\nid = 'hv1'\nkind = 'host'\nnetworks = [{{ name = 'default' }}]\nactivation_timeout = '120s'\nactivation = {{ type = 'exec', start = ['{script}', 'start'], stop = ['{script}', 'stop'], status = ['{script}', 'status'] }}\n\
             [[hypervisor]]\nid = 'hv2'\nkind = 'guest'\ncpu = 2\nmemory_mb = 512\npool = 'default-pool'\nbase_image = 'b'\n"
        );
        site.configure_agent("test:///default", &hypervisors);
        let credentials = Credentials::load(&site.ca.files("client/admin/test")).unwrap();
        let config = hostler_pki::client_config(&credentials).unwrap();
        let address = format!("127.0.0.1:{}", site.port).parse().unwrap();
        let channel = hostler_pki::channel(&address, config, ChannelOptions::default());
        let mut world = Self {
            coordinators: Clock::off_by(site.path("coordinator.clock"), NOON),
            agents: Clock::off_by(site.path("agent.clock"), NOON),
            fleet: FleetServiceClient::new(channel),
            coordinator: None,
            agent: None,
            faked,
            site,
        };
        world.start_coordinator();
        world.start_agent();
        world.site.until_state("hv1", "out_of_service").await;
        world
    }

    fn start(&self, name: &str, clock: &Clock) -> Process {
        let mut start = command(&format!("hostler-{name}"));
        start.arg("--config").arg(self.site.path(&format!("{name}.toml")));
        clock.rule(&mut start, self.faked);
        Process::start(&mut start, &self.site.path(&format!("{name}.log")))
    }

    fn start_coordinator(&mut self) {
        self.coordinator = Some(self.start("coordinator", &self.coordinators));
    }

    fn start_agent(&mut self) {
        self.agent = Some(self.start("agent", &self.agents));
    }

    /// Starts a create and waits until its activation runs. Answers with its id.
    async fn creating(&self) -> String {
        let mut create = self.site.hostler("operator");
        let begun = Process::start(
            create.args(["hypervisors", "create", "hv1"]),
            &self.site.path("create.log"),
        );
        wait::until("the activation begins", || async {
            self.site.path("turns").exists().then_some(())
        })
        .await;
        // The operation is nobody's connection.
        begun.kill();
        let request = rpc::ListOperationsRequest {
            resource: "hv1".into(),
            page_size: 1,
            ..Default::default()
        };
        let answer = self.fleet.clone().list_operations(request).await.unwrap();
        answer.into_inner().operations.remove(0).id
    }

    async fn lock(&self, seconds: u32) -> String {
        let request = rpc::ProposeOperationRequest {
            proposal: Some(ProposeOperationRequest {
                name: "hv2".into(),
                lock_for_seconds: seconds,
                proposing_peer_token: "mine".into(),
                ..Default::default()
            }),
            reason: "disk swap".into(),
        };
        let answer = self.fleet.clone().propose_operation(request).await.unwrap();
        answer.into_inner().operation.unwrap().id
    }

    async fn operation(&self, id: &str) -> Option<rpc::Operation> {
        let request = rpc::GetOperationRequest { id: id.into() };
        let answer = self.fleet.clone().get_operation(request).await.ok()?;
        answer.into_inner().operation
    }

    async fn ended(&self, id: &str) -> rpc::Operation {
        wait::until("the operation ends", || async {
            self.operation(id)
                .await
                .filter(|operation| operation.ended.is_some())
        })
        .await
    }

    /// Waits until the agent has renewed often enough for more than one lease, and holds it to have lost none.
    async fn a_lease_later(&self, id: &str, what: &str) {
        let seen = std::sync::Mutex::new(BTreeSet::new());
        let operation = wait::until("the lease is renewed, and again", || async {
            let operation = self.operation(id).await?;
            let until = operation.lease.as_ref()?.locked_until?;
            let mut seen = seen.lock().unwrap();
            seen.insert((until.seconds, until.nanos));
            // The first is what was there; renewals come at a third of the lease.
            (seen.len() > 5).then_some(operation)
        })
        .await;
        assert_eq!((operation.state(), operation.attempts), (Active, 1), "{what}");
    }

    async fn let_go(&self, id: &str) -> rpc::Operation {
        self.site.write("go", "");
        self.ended(id).await
    }

    fn turns(&self) -> usize {
        let turns = std::fs::read_to_string(self.site.path("turns")).unwrap();
        turns.lines().count()
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_by_an_hour_frees_nothing_early_also_across_a_restart() {
    let mut world = World::begin(Faked::Wall).await;
    let lock = world.lock(600).await;
    let create = world.creating().await;
    for hours in [1, -1] {
        world.coordinators.set(NOON + hours * HOUR);
        world
            .a_lease_later(&create, &format!("the coordinator's clock, {hours:+} h"))
            .await;
        world.agents.set(NOON - hours * HOUR);
        world
            .a_lease_later(&create, &format!("the agent's clock, {:+} h", -hours))
            .await;
        assert_eq!(world.operation(&lock).await.unwrap().state(), Active);
    }
    for hours in [1, -1] {
        world.coordinator.take().unwrap().kill();
        world.coordinators.set(NOON + hours * HOUR);
        world.start_coordinator();
        world
            .a_lease_later(&create, &format!("a restart at {hours:+} h"))
            .await;
        assert_eq!(world.operation(&lock).await.unwrap().state(), Active);
    }
    let ended = world.let_go(&create).await;
    assert_eq!((ended.state(), ended.attempts), (Completed, 1), "{ended:?}");
    assert_eq!(world.turns(), 1, "it ran once");
    assert_eq!(world.operation(&lock).await.unwrap().state(), Active);
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_holds_nothing_for_an_hour() {
    let mut world = World::begin(Faked::Wall).await;
    let lock = world.lock(2).await;
    world.coordinators.set(NOON - HOUR);
    assert_eq!(world.ended(&lock).await.state(), Completed, "it ends at its time");
    let lock = world.lock(3).await;
    world.coordinator.take().unwrap().kill();
    world.coordinators.set(NOON - 2 * HOUR);
    world.start_coordinator();
    assert_eq!(world.ended(&lock).await.state(), Completed, "so after a restart");
    let create = world.creating().await;
    world.agent.take().unwrap().kill();
    world.coordinators.set(NOON - 3 * HOUR);
    world.start_agent();
    let ended = world.let_go(&create).await;
    assert_eq!(
        (ended.state(), ended.attempts),
        (Completed, 2),
        "the dead agent's lease ran out: {ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clock_that_goes_ten_percent_off_on_one_side_loses_no_lease() {
    let worlds = [
        ("coordinator", 90),
        ("coordinator", 110),
        ("agent", 90),
        ("agent", 110),
    ];
    let worlds = worlds.map(|(side, percent)| {
        tokio::spawn(async move {
            let world = World::begin(Faked::All).await;
            match side {
                "coordinator" => world.coordinators.go_at(NOON, percent),
                _ => world.agents.go_at(NOON, percent),
            }
            let create = world.creating().await;
            world
                .a_lease_later(&create, &format!("the {side} at {percent} %"))
                .await;
            let ended = world.let_go(&create).await;
            assert_eq!(
                (ended.state(), ended.attempts),
                (Completed, 1),
                "{side} at {percent} %"
            );
            assert_eq!(world.turns(), 1);
        })
    });
    for world in worlds {
        world.await.unwrap();
    }
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_certificate_is_refused_before_and_after_its_time_by_either_side() {
    let mut world = World::begin(Faked::Wall).await;
    // The store of the one that runs is taken.
    let beside = std::fs::read_to_string(world.site.path("coordinator.toml")).unwrap();
    let (data, other) = (world.site.path("data"), world.site.path("other-data"));
    let beside = beside.replace(data.to_str().unwrap(), other.to_str().unwrap());
    world.site.write("beside.toml", &beside);
    let client = |off: i64| {
        let clock = Clock::off_by(world.site.path("client.clock"), off);
        let mut list = world.site.hostler("viewer");
        clock.rule(&mut list, Faked::Wall);
        list.args(["--timeout", "5s", "hypervisors", "list"])
            .output()
            .unwrap()
    };
    let good = client(0);
    assert!(good.status.success(), "{}", printed(&good));
    for (off, words) in [(40 * 365 * DAY, "expired"), (-DAY, "not valid before")] {
        // The client looks at its own certificate first; the coordinator's it would refuse as well.
        let refused = client(off);
        assert_eq!(refused.status.code(), Some(3), "{}", printed(&refused));
        assert!(printed(&refused).contains(words), "{off}: {}", printed(&refused));
        // The coordinator looks at the client's.
        world.coordinators.set(off);
        let refused = client(0);
        assert_eq!(refused.status.code(), Some(3), "{}", printed(&refused));
        let said = printed(&refused);
        assert!(
            said.contains("refused our certificate") && said.contains("compare the clocks"),
            "{said}"
        );
        world.coordinators.set(NOON);
        // No coordinator starts with a certificate of another time. An agent does, and waits for a new one: its check tells.
        let starts = [
            ("coordinator", "beside.toml", None),
            ("agent", "agent.toml", Some("--check")),
        ];
        for (name, config, only) in starts {
            let clock = Clock::off_by(world.site.path("start.clock"), off);
            let mut start = command(&format!("hostler-{name}"));
            start.arg("--config").arg(world.site.path(config)).args(only);
            clock.rule(&mut start, Faked::Wall);
            let refused = start.output().unwrap();
            assert_eq!(refused.status.code(), Some(1), "{name} at {off}");
            assert!(
                printed(&refused).contains(words),
                "{name} at {off}: {}",
                printed(&refused)
            );
        }
    }
    // An agent whose clock fails while it runs is not let in again, and is listed all the same.
    world.coordinator.take().unwrap().kill();
    world.agents.set(-DAY);
    world.start_coordinator();
    world.site.until_state("hv1", "unknown").await;
    wait::until("the agent says why", || async {
        let printed = world.agent.as_ref().unwrap().printed();
        printed.contains("not valid before").then_some(())
    })
    .await;
    world.agents.set(NOON);
    world.site.until_state("hv1", "out_of_service").await;
}
