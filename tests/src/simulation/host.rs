//! A host as it really is: what its hypervisors consist of, and the steps that change that. It outlives its agent.
//!
//! Each hypervisor has three parts; it is in service when all are there. Steps make and remove parts at one instant,
//! fail before or after it, and take their time around it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_agent::executor::plan::{Job, PlanSource, Planned};
use hostler_agent::executor::step::{Before, Progress, Step, StepError};
use hostler_common::error::Retry;
use hostler_common::id::{HostName, OperationId};
use hostler_common::operation::OperationKind;
use hostler_common::rpc::hostler::agent::v1 as rpc;

use super::world::World;

const PARTS: [&str; 3] = ["network", "pool", "activation"];

/// The longest that a step may take.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(20);

/// Which parts are there.
pub(super) type Parts = [bool; 3];

/// Clones share it.
#[derive(Clone)]
pub(super) struct Host {
    /// Its name.
    pub(super) name: HostName,
    world: World,
    machines: Arc<Mutex<BTreeMap<String, Machine>>>,
}

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Made,
    None,
}

/// One hypervisor.
#[derive(Default)]
struct Machine {
    parts: Parts,
    /// How often it was changed, by whomever and by each operation.
    changes: u64,
    own: BTreeMap<OperationId, u64>,
    /// How often others had changed it when an operation first looked.
    others: BTreeMap<OperationId, u64>,
    /// What was there when an operation was first planned.
    before: BTreeMap<OperationId, Parts>,
    /// Calls of steps that have been made and have not happened.
    calls: u32,
}

impl Host {
    /// With hypervisors that are out of service.
    pub(super) fn new(world: &World, number: usize) -> Self {
        let machines = (0..world.scenario().hypervisors).map(|n| {
            let id = format!("hv{number}-{n}");
            (id, Machine::default())
        });
        Self {
            name: format!("host{number}").parse().expect("a host's name"),
            world: world.clone(),
            machines: Arc::new(Mutex::new(machines.collect())),
        }
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its hypervisors.
    pub(super) fn ids(&self) -> Vec<String> {
        self.machines().keys().cloned().collect()
    }

    /// What there is of `id`.
    pub(super) fn parts(&self, id: &str) -> Option<Parts> {
        self.machines().get(id).map(|machine| machine.parts)
    }

    /// What there was of `id` before `operation`.
    pub(super) fn parts_before(&self, id: &str, operation: OperationId) -> Option<Parts> {
        self.machines().get(id)?.before.get(&operation).copied()
    }

    /// Whether calls of steps on `id` may still happen.
    pub(super) fn is_busy(&self, id: &str) -> bool {
        self.machines().get(id).is_some_and(|machine| machine.calls > 0)
    }

    /// The agent was killed: calls that had not happened never do.
    pub(super) fn killed(&self) {
        self.machines().values_mut().for_each(|machine| machine.calls = 0);
    }

    /// How long a call waits before it happens and after. Steps are named `verb part of hypervisor`.
    pub(super) fn pace(&self, what: &str) -> (Duration, Duration) {
        let (slow, lost) = self.world.scenario().step_slow;
        let called = what.rsplit_once(" of ").map(|(_, id)| id.to_owned());
        let mut machines = self.machines();
        let Some(machine) = called.and_then(|id| machines.get_mut(&id)) else {
            return self.world.roll(|dice| (dice.millis(0, 20), dice.millis(0, 20)));
        };
        machine.calls += 1;
        let deadline = u64::try_from(STEP_DEADLINE.as_millis()).unwrap_or(0);
        if self.world.strikes(lost) {
            self.world.count("steps that outlived their deadline");
            return self
                .world
                .roll(|dice| (dice.millis(deadline, 3 * deadline), dice.millis(0, 2000)));
        }
        let longest = if self.world.strikes(slow) {
            deadline / 2
        } else {
            300
        };
        self.world
            .roll(|dice| (dice.millis(1, longest), dice.millis(1, longest)))
    }

    /// What the agent reports. A look at the host.
    pub(super) fn report(&self) -> rpc::HostReport {
        let inventory = rpc::Inventory {
            cpu_threads: 8,
            memory_mb: 16384,
            ..rpc::Inventory::default()
        };
        let machines = self.machines();
        let hypervisors = machines.iter().map(|(id, machine)| rpc::HypervisorReport {
            id: id.clone(),
            kind: rpc::HypervisorKind::Host.into(),
            observed: match machine.parts {
                [true, true, true] => rpc::Observed::InService.into(),
                _ => rpc::Observed::OutOfService.into(),
            },
            detail: match machine.parts {
                [true, true, true] | [false, false, false] => String::new(),
                _ => "something is left of it".to_owned(),
            },
            inventory: Some(inventory.clone()),
        });
        rpc::HostReport {
            hypervisors: hypervisors.collect(),
            inventory: Some(inventory.clone()),
            pools: Vec::new(),
        }
    }

    /// The plans of its operations.
    pub(super) fn plans(&self) -> PlanSource {
        let host = self.clone();
        Arc::new(move |job: &Job, _| host.plan(job))
    }

    fn plan(&self, job: &Job) -> Result<Planned, String> {
        let id = job.resource.to_string();
        let mut machines = self.machines();
        let machine = machines.get_mut(&id).ok_or("it is not here")?;
        machine.before.entry(job.operation).or_insert(machine.parts);
        let make = job.request.kind() == OperationKind::CreateHypervisor;
        let mut order = vec![0, 1, 2];
        if !make {
            order.reverse();
        }
        let step = |part| -> Box<dyn Step> {
            Box::new(PartStep {
                host: self.clone(),
                id: id.clone(),
                operation: job.operation,
                part,
                make,
            })
        };
        Ok(Planned {
            steps: order.into_iter().map(step).collect(),
            success: format!("{id} is as asked"),
            decided: serde_json::Value::Null,
            says: Vec::new(),
        })
    }

    /// One call of a step happens now.
    fn touch<T>(
        &self,
        (id, operation): (&str, OperationId),
        change: Change,
        call: &str,
        act: impl FnOnce(&mut Parts) -> T,
    ) -> T {
        let mut machines = self.machines();
        let machine = machines.get_mut(id).expect("it was planned");
        machine.calls = machine.calls.saturating_sub(1);
        let result = act(&mut machine.parts);
        let line = format!("{}: {call} {id} for {operation}: {:?}", self.name, machine.parts);
        // A look that comes late changes nothing, so that only changes count.
        let (all, own) = (machine.changes, machine.own.get(&operation).copied().unwrap_or(0));
        let others = *machine.others.entry(operation).or_insert(all - own);
        if change == Change::Made {
            self.world
                .check("invariant_one_mutation_at_a_time", others == all - own, || {
                    format!("{line}: others have changed it since this one began")
                });
            machine.changes += 1;
            machine.own.insert(operation, own + 1);
        }
        self.world.note(line);
        result
    }
}

/// Makes one part be there, or not.
struct PartStep {
    host: Host,
    id: String,
    operation: OperationId,
    part: usize,
    make: bool,
}

impl PartStep {
    fn set(&self, call: &str, there: bool, fails: u64) -> Result<(), StepError> {
        let world = &self.host.world;
        let fault = world
            .strikes(fails)
            .then(|| world.roll(|dice| (dice.happens(500), dice.index(3))));
        let act = |parts: &mut Parts| {
            if !matches!(fault, Some((true, _))) {
                parts[self.part] = there;
            }
        };
        let call = format!("{call} {}", PARTS[self.part]);
        self.host
            .touch((&self.id, self.operation), Change::Made, &call, act);
        let Some((before, retry)) = fault else {
            return Ok(());
        };
        world.count("steps that failed");
        let retry = match retry {
            0 => Retry::Never,
            // What was done all the same is no reason to say that nothing was.
            1 if before => Retry::Later,
            _ => Retry::ReadBack,
        };
        Err(StepError::message("on purpose", retry))
    }
}

impl Step for PartStep {
    fn name(&self) -> String {
        let verb = if self.make { "make" } else { "remove" };
        format!("{verb} {} of {}", PARTS[self.part], self.id)
    }

    fn deadline(&self) -> Duration {
        STEP_DEADLINE
    }

    fn look(&self) -> Result<Before, StepError> {
        let there = self
            .host
            .touch((&self.id, self.operation), Change::None, "look at", |parts| {
                parts[self.part]
            });
        if self.host.world.strikes(self.host.world.scenario().step_fails / 4) {
            return Err(StepError::message("cannot be told, on purpose", Retry::Later));
        }
        Ok(if there { Before::Active } else { Before::Absent })
    }

    fn apply(&self, _: Before, progress: &Progress) -> Result<(), StepError> {
        progress.say(format!("working on {}", PARTS[self.part]));
        if let Err(cancelled) = progress.check_cancelled() {
            self.host
                .touch((&self.id, self.operation), Change::None, "leave", |_| ());
            return Err(cancelled);
        }
        self.set("apply", self.make, self.host.world.scenario().step_fails)
    }

    fn undo(&self, before: Before, _: &Progress) -> Result<(), StepError> {
        self.set(
            "undo",
            before == Before::Active,
            self.host.world.scenario().step_fails / 2,
        )
    }
}
