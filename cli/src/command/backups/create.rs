//! `hostler backups create`.

use clap::Args;
use hostler_common::rpc::hostler::fleet::v1::CreateBackupRequest;

use crate::command::Context;
use crate::command::asking::{Asking, OfPool};
use crate::command::follow::Asked;
use crate::failure::Failure;

/// Backs a storage pool up
#[derive(Debug, Args)]
#[command(
    long_about = "\
Backs a storage pool up: all its files at one instant go into its repository, which is then checked; old backups are \
removed as the host's configuration says, never the last good one. The pool stays in use meanwhile. A backup that is empty, short \
or unreadable has failed.

The operation is the coordinator's: it goes on when this client is interrupted, and `hostler operations cancel` stops it.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler backups create --reason \"before the upgrade\"
  hostler backups create --pool archive --detach"
)]
pub(crate) struct Create {
    #[command(flatten)]
    pool: OfPool,
    #[command(flatten)]
    asking: Asking,
}

impl Create {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let pool = self.pool.name();
        let asked = Asked::CreateBackup(CreateBackupRequest { pool });
        self.asking.run(asked, context).await
    }
}
