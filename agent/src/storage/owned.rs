//! The pool with its backups: which of the two plans an operation or answers a question.
//!
//! It does neither itself. The invariant: what names another pool reaches neither.

use hostler_common::error::Chain;
use hostler_common::id::PoolName;
use hostler_common::operation::Request;
use hostler_common::rpc::hostler::agent::v1::ask::Question;
use hostler_common::rpc::hostler::agent::v1::ask_answer::Answer;
use hostler_common::rpc::hostler::agent::v1::{DryRunAnswer, ListBackupsAnswer, PoolReport};
use prost_types::Any;
use serde_json::Value;

use super::owner::Storage;
use crate::backup::Backups;
use crate::executor::plan::{Job, Planned};
use crate::hypervisor::Look;

/// The pool of this host, with its backups.
pub struct Owned {
    /// The pool.
    pub storage: Storage,
    /// Its backups, when they are configured.
    pub backups: Option<Backups>,
}

impl Owned {
    /// The steps of an operation on the pool. It blocks.
    ///
    /// # Errors
    /// One line: why there are none.
    pub fn plan(&self, job: &Job, decided: Option<&Value>) -> Result<Planned, String> {
        self.storage.check_name(&PoolName::from(&job.resource))?;
        match &job.request {
            Request::ExpandStorage { .. } | Request::ShrinkStorage { .. } => self.storage.plan(job, decided),
            Request::CreateBackup
            | Request::VerifyBackup { .. }
            | Request::RestoreBackup { .. }
            | Request::DeleteBackup { .. } => self.backups()?.plan(job, decided),
            Request::CreateHypervisor(_) | Request::DestroyHypervisor(_) => Err(format!(
                "{} is not an operation on a storage pool",
                job.request.kind().name()
            )),
        }
    }

    /// Answers a question about the pool. It blocks.
    ///
    /// # Errors
    /// One line: why there is no answer.
    pub fn answer(&self, question: Question, pool: &PoolName) -> Result<Answer, String> {
        self.storage.check_name(pool)?;
        match question {
            Question::DryRun(request) => self.dry_run(&request).map(Answer::DryRun),
            Question::ListBackups(_) => {
                let backups = self.backups()?.list()?;
                Ok(Answer::ListBackups(ListBackupsAnswer { backups }))
            }
        }
    }

    /// The pool for the host's report.
    pub fn report(&self, look: Look) -> PoolReport {
        self.storage.report(look)
    }

    fn dry_run(&self, request: &Any) -> Result<DryRunAnswer, String> {
        match Request::of(request).map_err(|error| Chain(&error).to_string())? {
            Request::DeleteBackup { id } => self.backups()?.dry_run_delete(&id),
            other => self.storage.dry_run(&other),
        }
    }

    fn backups(&self) -> Result<&Backups, String> {
        self.backups.as_ref().ok_or_else(|| {
            format!(
                "no backups are configured for pool {}; `[storage.backup]` in the agent's configuration names a repository",
                self.storage.name()
            )
        })
    }
}
