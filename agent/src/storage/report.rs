//! What the host reports of its pool, within a bounded time.
//!
//! A file system or a disk that hangs takes one thread with it and nothing more: each look runs on a thread of its
//! own, one at a time, and is waited for within [`DEADLINE`]. What cannot be told is a sentence beside the last
//! figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hostler_common::error::Chain;
use hostler_common::rpc::hostler::agent::v1::{DeviceRole, PoolDevice, PoolReport};

use super::Backend;
use super::plan::{self, Reserve};
use super::pool::{Member, PoolState, Presence, Spare};

/// How long a look at the pool and its spares may take.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// The looks of the report.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// One runs; when somebody else finds it so, it hangs.
    running: Arc<AtomicBool>,
}

/// Says that the look is over, however it ends.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Looks {
    /// Looks at the pool. Err is one line, for a person.
    pub(super) fn look(&self, backend: &Arc<dyn Backend>, within: Duration) -> Result<PoolState, String> {
        let hangs = || {
            format!(
                "it hangs: a look at it and its spare devices did not return within {within:?}; do its disks answer?"
            )
        };
        if self.running.swap(true, Ordering::AcqRel) {
            return Err(hangs());
        }
        let running = Running(Arc::clone(&self.running));
        let (tell, told) = mpsc::sync_channel(1);
        let backend = Arc::clone(backend);
        let spawned = std::thread::Builder::new()
            .name("pool-look".into())
            .spawn(move || {
                let seen = backend.look().map_err(|fault| Chain(&fault).to_string());
                // Free first: who has the result may look again.
                drop(running);
                let _ = tell.send(seen);
            });
        spawned.map_err(|error| format!("cannot start a look at it: {error}"))?;
        match told.recv_timeout(within) {
            Ok(seen) => seen,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(hangs()),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err("a look at it panicked; the log says where".to_owned())
            }
        }
    }
}

/// Puts what was seen into `report`, whose name, backend, path and repository stay.
pub(super) fn fill(report: &mut PoolReport, state: &PoolState, reserve: Reserve) {
    // It works, and the next disk that fails takes data with it: nobody may read "ready".
    report.problem = plan::degraded(state).unwrap_or_default();
    report.size_bytes = state.size.0;
    report.used_bytes = state.used.0;
    report.spare_bytes = plan::spare(state).0;
    report.smallest_bytes = plan::smallest(state, reserve).0;
    report.data_profile = state.data.to_string();
    report.metadata_profile = state.metadata.to_string();
    let members = state.members.iter().map(member);
    report.devices = members.chain(state.spares.iter().map(spare)).collect();
}

fn member(member: &Member) -> PoolDevice {
    let role = match member.presence {
        Presence::Present | Presence::Leaving => DeviceRole::Member,
        Presence::Missing => DeviceRole::Missing,
    };
    PoolDevice {
        path: member.name.to_string(),
        role: role.into(),
        capacity_bytes: member.capacity.0,
        share_bytes: member.share.0,
        allocated_bytes: member.allocated.0,
        problem: String::new(),
    }
}

fn spare(spare: &Spare) -> PoolDevice {
    let role = match spare.problem {
        None => DeviceRole::Spare,
        Some(_) => DeviceRole::Refused,
    };
    PoolDevice {
        path: spare.name.to_string(),
        role: role.into(),
        capacity_bytes: spare.capacity.0,
        problem: spare.problem.clone().unwrap_or_default(),
        ..PoolDevice::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use hostler_common::bytes::Bytes;

    use super::*;
    use crate::executor::step::{Progress, StepError};
    use crate::storage::PoolFault;
    use crate::storage::pool::{Change, DeviceName, Profile, Snapshot};
    use hostler_common::error::Retry;

    /// A pool whose looks wait until they are told to end.
    struct Hanging(Mutex<mpsc::Receiver<()>>);

    impl Backend for Hanging {
        fn kind(&self) -> &'static str {
            "hanging"
        }

        fn look(&self) -> Result<PoolState, PoolFault> {
            self.0.lock().unwrap().recv().expect("it panics on purpose");
            Err(PoolFault::new("it is not mounted", Retry::Later))
        }

        fn is_done(&self, _: &Change) -> Result<bool, PoolFault> {
            unreachable!()
        }

        fn apply(&self, _: &Change, _: &Progress) -> Result<(), StepError> {
            unreachable!()
        }

        fn revert(&self, _: &Change, _: &Progress) -> Result<(), StepError> {
            unreachable!()
        }

        fn take_snapshot(&self) -> Result<Snapshot, PoolFault> {
            unreachable!()
        }

        fn found_snapshot(&self) -> Result<Option<Snapshot>, PoolFault> {
            unreachable!()
        }

        fn remove_snapshot(&self) -> Result<(), PoolFault> {
            unreachable!()
        }
    }

    #[test]
    fn a_pool_that_works_without_one_of_its_devices_has_a_problem() {
        let member = |presence| Member {
            name: DeviceName("missing device 2".to_owned()),
            capacity: Bytes(1 << 30),
            share: Bytes(1 << 30),
            allocated: Bytes::ZERO,
            presence,
        };
        let mut state = PoolState {
            size: Bytes(1 << 30),
            used: Bytes::ZERO,
            data_used: Bytes::ZERO,
            metadata_used: Bytes::ZERO,
            data_free: Bytes::ZERO,
            metadata_allocated: Bytes::ZERO,
            data: Profile::Raid1,
            metadata: Profile::Raid1,
            members: vec![member(Presence::Present), member(Presence::Missing)],
            spares: Vec::new(),
        };
        let mut report = PoolReport::default();
        let reserve = Reserve::try_from(10).unwrap();
        fill(&mut report, &state, reserve);
        assert!(
            report
                .problem
                .starts_with("it is degraded: missing device 2 is missing"),
            "{}",
            report.problem
        );
        state.members.pop();
        fill(&mut report, &state, reserve);
        assert_eq!(report.problem, "");
    }

    #[test]
    fn a_pool_that_hangs_is_waited_for_once_and_looked_at_again_when_it_answers() {
        let (release, hang) = mpsc::channel();
        let backend: Arc<dyn Backend> = Arc::new(Hanging(Mutex::new(hang)));
        let looks = Looks::default();
        let long = Duration::from_secs(60);
        let problem = looks.look(&backend, Duration::from_millis(20)).unwrap_err();
        assert!(problem.starts_with("it hangs: a look at it"), "{problem}");
        // Not waited for again.
        assert!(looks.look(&backend, long).unwrap_err().starts_with("it hangs"));
        release.send(()).unwrap();
        release.send(()).unwrap();
        while looks.running.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert_eq!(looks.look(&backend, long).unwrap_err(), "it is not mounted");
        // Nor does one that dies keep the place.
        drop(release);
        assert!(looks.look(&backend, long).unwrap_err().contains("panicked"));
        assert!(looks.look(&backend, long).unwrap_err().contains("panicked"));
    }
}
