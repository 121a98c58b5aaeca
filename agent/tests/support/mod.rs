//! What the tests of steps share: a configuration from a few lines, and the laws that every step obeys.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;

use hostler_agent::config::AgentConfig;
use hostler_agent::executor::step::{Before, Listener, Progress, Step, StepError};
use hostler_agent::hypervisor::{Hypervisors, Look};
use hostler_agent::libvirt::{Libvirt, Presence};
use hostler_common::id::HypervisorId;
use hostler_common::operation::{OperationKind, Request, pack};
use hostler_common::rpc::hostler::agent::v1::{HypervisorReport, Measure, Observed};
use hostler_common::rpc::operations::v1 as operations;

/// A configuration of `hypervisors`, which is TOML.
pub fn config(folder: &Path, uri: &str, hypervisors: &str) -> AgentConfig {
    let text = format!(
        "coordinator = \"127.0.0.1:1312\"\nstate_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\n\
         [tls]\nca = \"/nonexistent\"\ncertificate = \"/nonexistent\"\nkey = \"/nonexistent\"\n\
         [libvirt]\nuri = \"{uri}\"\n{hypervisors}",
        folder.display()
    );
    let path = folder.join("agent.toml");
    std::fs::write(&path, text).unwrap();
    AgentConfig::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// The hypervisors of a configuration, on one connection.
pub struct Fleet {
    pub libvirt: Libvirt,
    pub hypervisors: Hypervisors,
}

impl Fleet {
    pub fn new(config: &AgentConfig) -> Self {
        let libvirt = Libvirt::new(config.libvirt.uri.clone());
        Self::on(libvirt, config)
    }

    /// On a connection whose objects are there already.
    pub fn on(libvirt: Libvirt, config: &AgentConfig) -> Self {
        let hypervisors = Hypervisors::new(config, libvirt.clone()).unwrap();
        Self { libvirt, hypervisors }
    }

    pub fn plan(&self, kind: OperationKind, id: &str) -> Vec<Box<dyn Step>> {
        self.hypervisors.plan(&request(kind, id)).unwrap().steps
    }

    pub fn create(&self, id: &str) -> Vec<Box<dyn Step>> {
        self.plan(OperationKind::CreateHypervisor, id)
    }

    pub fn destroy(&self, id: &str) -> Vec<Box<dyn Step>> {
        self.plan(OperationKind::DestroyHypervisor, id)
    }

    pub fn report(&self, id: &str) -> HypervisorReport {
        let report = self.hypervisors.report(Look::Whole);
        report
            .hypervisors
            .into_iter()
            .find(|hypervisor| hypervisor.id == id)
            .unwrap()
    }

    pub fn observed(&self, id: &str) -> Observed {
        self.report(id).observed()
    }
}

/// What an operation of `kind` on the hypervisor `id` asks for.
pub fn request(kind: OperationKind, id: &str) -> Request {
    let id: HypervisorId = id.parse().unwrap();
    match kind {
        OperationKind::CreateHypervisor => Request::CreateHypervisor(id),
        OperationKind::DestroyHypervisor => Request::DestroyHypervisor(id),
        other => panic!("{other:?} is not on a hypervisor"),
    }
}

/// The same as an operation carries it.
pub fn packed(kind: OperationKind, id: &str) -> prost_types::Any {
    match kind {
        OperationKind::CreateHypervisor => pack(&operations::CreateHypervisorRequest { id: id.into() }),
        OperationKind::DestroyHypervisor => pack(&operations::DestroyHypervisorRequest { id: id.into() }),
        other => panic!("{other:?} is not on a hypervisor"),
    }
}

/// Hears lines, and nothing else.
pub struct Lines<F>(pub F);

impl<F: Fn(String) + Send + Sync> Listener for Lines<F> {
    fn line(&self, line: String) {
        (self.0)(line);
    }

    fn measure(&self, _: Measure) {}

    fn conclusion(&self, _: String) {}

    fn cancelled(&self) -> Option<String> {
        None
    }
}

/// Hears nothing, and has been cancelled.
pub struct CancelledBy(pub &'static str);

impl Listener for CancelledBy {
    fn line(&self, _: String) {}

    fn measure(&self, _: Measure) {}

    fn conclusion(&self, _: String) {}

    fn cancelled(&self) -> Option<String> {
        Some(self.0.to_owned())
    }
}

pub fn silent() -> Progress {
    Progress::to(Lines(|_| ()))
}

/// Runs steps to their end, or to the first error.
pub fn run(steps: &[Box<dyn Step>]) -> Result<(), StepError> {
    for step in steps {
        let before = step.look()?;
        step.apply(before, &silent())?;
    }
    Ok(())
}

/// The names of steps, in order.
pub fn names(steps: &[Box<dyn Step>]) -> Vec<String> {
    steps.iter().map(|step| step.name()).collect()
}

pub fn network(libvirt: &Libvirt, name: &str) -> Presence {
    libvirt.network(&name.parse().unwrap()).unwrap()
}

pub fn pool(libvirt: &Libvirt, name: &str) -> Presence {
    libvirt.pool(&name.parse().unwrap()).unwrap()
}

/// What a guest has left in libvirt: its volume and its domain.
pub fn guest_world(libvirt: &Libvirt, pool: &str, id: &str) -> String {
    let volume = format!("hostler-{id}.qcow2").parse().unwrap();
    let volume = libvirt.volume(&pool.parse().unwrap(), &volume).unwrap();
    let uuid = libvirt.domain_named(&id.parse().unwrap()).unwrap();
    let state = uuid.and_then(|uuid| libvirt.domain(uuid).unwrap());
    format!("volume {volume:?}, domain {uuid:?} {state:?}")
}

/// Walks `steps` from the world as it is and holds each of them to the laws. Ends with every step applied.
///
/// # Panics
/// When a law is broken.
pub fn obey_the_laws(steps: &[Box<dyn Step>], world: impl Fn() -> String) {
    let mut done: Vec<(Before, String)> = Vec::new();
    for step in steps {
        let name = step.name();
        let start = world();
        let before = step.look().unwrap();
        assert_eq!(step.look().unwrap(), before, "{name}: a look changes nothing");

        step.undo(before, &silent()).unwrap();
        assert_eq!(world(), start, "{name}: an undo without an apply changes nothing");

        step.apply(before, &silent()).unwrap();
        let after = world();
        step.apply(before, &silent()).unwrap();
        assert_eq!(world(), after, "{name}: applied twice is applied once");

        step.undo(before, &silent()).unwrap();
        assert_eq!(world(), start, "{name}: an undo restores what was before");
        step.undo(before, &silent()).unwrap();
        assert_eq!(world(), start, "{name}: undone twice is undone once");

        step.apply(before, &silent()).unwrap();
        assert_eq!(world(), after, "{name}: applied after an undo is applied");
        done.push((before, start));
    }
    // And all of it, from the last step to the first, then forward again.
    for (step, (before, start)) in steps.iter().zip(&done).rev() {
        step.undo(*before, &silent()).unwrap();
        assert_eq!(
            &world(),
            start,
            "{}: unwinding restores what was before",
            step.name()
        );
    }
    for (step, (before, _)) in steps.iter().zip(&done) {
        step.apply(*before, &silent()).unwrap();
    }
}
