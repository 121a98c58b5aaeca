//! The pool of this host, as an operation, a question and a report see it.
//!
//! It decides by `plan`, works by `change`, and looks by the backend; it keeps nothing but the last report. The
//! invariant: nothing is planned for a pool of another name.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use hostler_common::error::Chain;
use hostler_common::id::PoolName;
use hostler_common::operation::Request;
use hostler_common::rpc::hostler::agent::v1::{DryRunAnswer, PoolReport};
use serde_json::Value;

use super::Backend;
use super::change::{self, Site};
use super::plan::{self, Reserve, StoragePlan};
use super::report::{self, Looks};
use crate::executor::plan::{Job, Planned};
use crate::hypervisor::Look;

/// What a pool is to the fleet.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name.
    pub pool: PoolName,
    /// Where it is mounted.
    pub path: PathBuf,
    /// What a shrink leaves free.
    pub reserve: Reserve,
    /// Where its backups go, without credentials; empty when nowhere.
    pub backup_repository: String,
}

/// The pool of this host.
pub struct Storage {
    site: Site,
    looks: Looks,
    last: Mutex<PoolReport>,
}

impl Storage {
    /// A pool that is made with `backend`. It looks at nothing.
    pub fn new(settings: Settings, backend: Arc<dyn Backend>) -> Self {
        let last = PoolReport {
            name: settings.pool.to_string(),
            backend: backend.kind().to_owned(),
            path: settings.path.display().to_string(),
            problem: "it has not been looked at yet".to_owned(),
            reserve_percent: settings.reserve.percent(),
            backup_repository: settings.backup_repository,
            ..PoolReport::default()
        };
        Self {
            site: Site {
                pool: settings.pool,
                backend,
                reserve: settings.reserve,
            },
            looks: Looks::default(),
            last: Mutex::new(last),
        }
    }

    /// Its name.
    pub fn name(&self) -> &PoolName {
        &self.site.pool
    }

    /// The steps of an expand or a shrink. Decides anew by a look at every device, unless it is known what was
    /// decided. It blocks.
    ///
    /// # Errors
    /// One line: another pool is meant, another kind of operation, or there is nothing that may be done.
    pub fn plan(&self, job: &Job, decided: Option<&Value>) -> Result<Planned, String> {
        let pool = PoolName::from(&job.resource);
        self.check_name(&pool)?;
        let plan = match decided {
            None => self.decide(&job.request)?,
            Some(detail) => serde_json::from_value(detail.clone()).map_err(|error| {
                format!("pool {pool}: what the journal says was decided cannot be read: {error}")
            })?,
        };
        let decided = serde_json::to_value(&plan)
            .map_err(|error| format!("pool {pool}: what was decided cannot be written: {error}"))?;
        let says = plan.lines();
        let plan = Arc::new(plan);
        let steps = change::steps(&self.site, &plan);
        Ok(Planned {
            success: format!("pool {pool} is changed: {} steps done", steps.len()),
            steps,
            decided,
            says,
        })
    }

    /// What an expand or a shrink would do now. It blocks.
    ///
    /// # Errors
    /// One line: why it would be refused.
    pub fn dry_run(&self, request: &Request) -> Result<DryRunAnswer, String> {
        let plan = self.decide(request)?;
        let pool = &self.site.pool;
        let (what, change) = match plan.after >= plan.before {
            true => ("grow", plan.after.minus(plan.before)),
            false => ("shrink", plan.before.minus(plan.after)),
        };
        Ok(DryRunAnswer {
            lines: plan.lines(),
            outcome: format!("{pool} would {what} by {change} to {}", plan.after),
            size_change_bytes: plan.size_change(),
        })
    }

    /// The pool as it is now, or as it was at the last whole look. It takes at most [`report::DEADLINE`], and
    /// never fails: what cannot be told is reported so.
    pub fn report(&self, look: Look) -> PoolReport {
        if look == Look::Quick {
            return self.last();
        }
        let seen = self.looks.look(&self.site.backend, report::DEADLINE);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Ok(state) => report::fill(&mut last, &state, self.site.reserve),
            Err(problem) => last.problem = problem,
        }
        last.clone()
    }

    /// The last report, without a look.
    pub fn last(&self) -> PoolReport {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses every other name.
    ///
    /// # Errors
    /// One line that tells this pool's name.
    pub fn check_name(&self, pool: &PoolName) -> Result<(), String> {
        match *pool == self.site.pool {
            true => Ok(()),
            false => Err(format!(
                "this host owns the pool {} and not {pool}",
                self.site.pool
            )),
        }
    }

    fn decide(&self, request: &Request) -> Result<StoragePlan, String> {
        let Site {
            pool,
            backend,
            reserve,
        } = &self.site;
        let look = || backend.look().map_err(|fault| Chain(&fault).to_string());
        let plan = match request {
            Request::ExpandStorage { min } => plan::expand(&look()?, *min),
            Request::ShrinkStorage { max } => plan::shrink(&look()?, *max, *reserve),
            Request::CreateHypervisor(_)
            | Request::DestroyHypervisor(_)
            | Request::CreateBackup
            | Request::VerifyBackup { .. }
            | Request::RestoreBackup { .. }
            | Request::DeleteBackup { .. } => {
                return Err(format!(
                    "{} has no dry run: only expanding, shrinking and deleting a backup have one",
                    request.kind().name()
                ));
            }
        };
        plan.map_err(|refusal| format!("pool {pool}: {refusal}"))
    }
}
