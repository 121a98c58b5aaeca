//! Which pool a request means, and whether it only asks what would be done.

use hostler_common::id::{HostName, PoolName};
use hostler_common::operation::pool_of;
use hostler_common::rpc::hostler::fleet::v1 as fleet;
use hostler_common::rpc::operations::v1 as operations;
use prost::Name;
use thiserror::Error;
use tonic::Status;

use super::{status, submit};
use crate::operation::wish::Wanted;
use crate::registry::{NoDefaultPool, Registry};

/// A request that changes a pool: as of operations.v1, the default one, at once.
pub(super) trait OnPool: Name {
    /// The pool that it names; empty for the default one.
    fn pool(&self) -> &str {
        ""
    }
    /// Whether it only asks what would be done.
    fn is_dry_run(&self) -> bool {
        false
    }
}

impl OnPool for operations::ExpandStorageRequest {}
impl OnPool for operations::ShrinkStorageRequest {}
impl OnPool for operations::CreateBackupRequest {}

macro_rules! of_fleet {
    ($($name:ident $(, $dry_run:ident)?;)*) => {
        $(impl OnPool for fleet::$name {
            fn pool(&self) -> &str {
                &self.pool
            }
            $(fn is_dry_run(&self) -> bool {
                self.$dry_run
            })?
        })*
    };
}

of_fleet!(
    ExpandStorageRequest, dry_run;
    ShrinkStorageRequest, dry_run;
    CreateBackupRequest;
    VerifyBackupRequest;
    RestoreBackupRequest;
    DeleteBackupRequest, dry_run;
);

/// Why no pool is meant.
#[derive(Debug, Error)]
pub(super) enum NoPool {
    /// No agent has reported it.
    #[error("there is no storage pool {pool}; `hostler storage list` shows those that there are")]
    Unknown {
        /// Its name.
        pool: PoolName,
    },
    /// None is named, and none is the default.
    #[error(transparent)]
    NoDefault(#[from] NoDefaultPool),
}

/// The pool of this name and the host that owns it; the default pool when the name is empty.
///
/// # Errors
/// INVALID_ARGUMENT when it is no name. That there is no such pool is for the caller to say in its way.
pub(super) fn find(registry: &Registry, name: &str) -> Result<Result<(PoolName, HostName), NoPool>, Status> {
    let named = pool_of(name).map_err(|error| status::of_invalid(&error))?;
    let pool = match named.map_or_else(|| registry.default_pool(), Ok) {
        Ok(pool) => pool,
        Err(error) => return Ok(Err(error.into())),
    };
    Ok(match registry.pool(&pool, |view| view.record.host.clone()) {
        Some(host) => Ok((pool, host)),
        None => Err(NoPool::Unknown { pool }),
    })
}

/// What a request wants, and of which pool.
///
/// # Errors
/// INVALID_ARGUMENT when it makes no sense.
pub(super) fn wanted<M: OnPool>(registry: &Registry, message: &M) -> Result<Result<Wanted, NoPool>, Status> {
    let asked = submit::asked(message)?;
    let found = find(registry, message.pool())?;
    Ok(found.map(|(pool, host)| Wanted {
        asked,
        resource: (&pool).into(),
        host,
    }))
}
