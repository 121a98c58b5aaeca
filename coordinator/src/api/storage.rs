//! Storage pools of `hostler.fleet.v1`: the list, the backups of one, and what changes one.

use hostler_common::rpc::hostler::agent::v1::{ListBackupsQuestion, ask, ask_answer};
use hostler_common::rpc::hostler::fleet::v1 as rpc;
use tonic::{Request, Response, Status};

use super::fleet::Fleet;
use super::pool::{self, OnPool};
use super::progress::{Responses, Said, respond};
use super::submit::{Submit, asker};
use super::{dry_run, status};
use crate::session::asks::AskError;

impl Fleet {
    pub(super) fn pools(&self) -> rpc::ListStoragePoolsResponse {
        rpc::ListStoragePoolsResponse {
            pools: self.registry.map_pools(|view| view.to_rpc()),
        }
    }

    /// An operation on a pool, or what it would do.
    pub(super) async fn on_pool<M: OnPool, R: From<Said> + 'static>(
        &self,
        request: Request<M>,
    ) -> Result<Response<Responses<R>>, Status> {
        let asker = asker(&request)?;
        let message = request.get_ref();
        let talk = match message.is_dry_run() {
            true => dry_run::talk(&self.registry, self.asks.clone(), message)?,
            false => {
                let submit = Submit::new(&self.engine, &self.registry);
                submit.on_pool(message, &asker).await?
            }
        };
        Ok(respond(talk, self.shutdown.clone()))
    }

    /// What backups there are, as the pool's repository says now.
    pub(super) async fn backups(
        &self,
        request: &rpc::ListBackupsRequest,
    ) -> Result<rpc::ListBackupsResponse, Status> {
        let (pool, host) = pool::find(&self.registry, &request.pool)?
            .map_err(|no_pool| Status::not_found(no_pool.to_string()))?;
        let question = ask::Question::ListBackups(ListBackupsQuestion {});
        match self.asks.ask(&host, &pool, question).await {
            Ok(ask_answer::Answer::ListBackups(answer)) => Ok(rpc::ListBackupsResponse {
                pool: pool.to_string(),
                backups: answer.backups,
            }),
            Ok(ask_answer::Answer::Refused(_) | ask_answer::Answer::DryRun(_)) => {
                Err(status::of_ask(&AskError::Unfit { host }))
            }
            Err(error) => Err(status::of_ask(&error)),
        }
    }
}
