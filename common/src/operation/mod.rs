//! What operations there are, and the request that stands for each on the wire.

mod backup;
mod hold;
mod request;

use serde::{Deserialize, Serialize};

pub use backup::{BackupId, InvalidBackup, PoolPath, ReadShare, RestoreInto};
pub use hold::{HOLD_SECONDS_AT_MOST, Hold, HoldKind, HoldWish, InvalidHold, Purpose};
pub use request::{Request, RequestError, pack, pool_of};

/// What an agent does to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperationKind {
    /// Puts a hypervisor in service.
    CreateHypervisor,
    /// Takes a hypervisor out of service.
    DestroyHypervisor,
    /// Grows a storage pool.
    ExpandStorage,
    /// Shrinks a storage pool.
    ShrinkStorage,
    /// Backs a storage pool up.
    CreateBackup,
    /// Checks the backups of a storage pool.
    VerifyBackup,
    /// Brings files of a storage pool back.
    RestoreBackup,
    /// Deletes a backup of a storage pool.
    DeleteBackup,
}

/// What kind of resource an operation is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A hypervisor.
    Hypervisor,
    /// A storage pool.
    Pool,
}

/// Whether an operation that runs may be stopped and undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cancelling {
    /// It may.
    Allowed,
    /// It cannot: n0stack's `is_disabled_cancel`.
    Disabled,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::CreateHypervisor,
        Self::DestroyHypervisor,
        Self::ExpandStorage,
        Self::ShrinkStorage,
        Self::CreateBackup,
        Self::VerifyBackup,
        Self::RestoreBackup,
        Self::DeleteBackup,
    ];

    /// As in the rpc.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateHypervisor => "CreateHypervisor",
            Self::DestroyHypervisor => "DestroyHypervisor",
            Self::ExpandStorage => "ExpandStorage",
            Self::ShrinkStorage => "ShrinkStorage",
            Self::CreateBackup => "CreateBackup",
            Self::VerifyBackup => "VerifyBackup",
            Self::RestoreBackup => "RestoreBackup",
            Self::DeleteBackup => "DeleteBackup",
        }
    }

    /// The verb for people, before the resource's name: `back up` default.
    pub fn verb(self) -> &'static str {
        match self {
            Self::CreateHypervisor => "create",
            Self::DestroyHypervisor => "destroy",
            Self::ExpandStorage => "expand",
            Self::ShrinkStorage => "shrink",
            Self::CreateBackup => "back up",
            Self::VerifyBackup => "verify backups of",
            Self::RestoreBackup => "restore files of",
            Self::DeleteBackup => "delete a backup of",
        }
    }

    /// What kind of resource it is on.
    pub fn subject(self) -> Subject {
        match self {
            Self::CreateHypervisor | Self::DestroyHypervisor => Subject::Hypervisor,
            Self::ExpandStorage
            | Self::ShrinkStorage
            | Self::CreateBackup
            | Self::VerifyBackup
            | Self::RestoreBackup
            | Self::DeleteBackup => Subject::Pool,
        }
    }

    /// Whether it may be stopped while it runs. What is deleted from a repository does not come back.
    pub fn cancelling(self) -> Cancelling {
        match self {
            Self::DeleteBackup => Cancelling::Disabled,
            Self::CreateHypervisor
            | Self::DestroyHypervisor
            | Self::ExpandStorage
            | Self::ShrinkStorage
            | Self::CreateBackup
            | Self::VerifyBackup
            | Self::RestoreBackup => Cancelling::Allowed,
        }
    }
}
