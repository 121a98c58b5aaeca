//! `hostler backups restore`.

use clap::{ArgGroup, Args};
use hostler_common::operation::{BackupId, PoolPath};
use hostler_common::rpc::hostler::fleet::v1::RestoreBackupRequest;

use crate::command::Context;
use crate::command::asking::{Asking, OfPool};
use crate::command::follow::Asked;
use crate::failure::Failure;

/// Brings files back from a backup
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("place").args(["to", "path"]).required(true).multiple(true),
    long_about = "\
Brings files back from a backup, in one of three ways:

  --to DIR           everything into a directory of the pool's host (not of
                     this machine), which must be empty or absent; nothing in
                     the pool is touched
  --to DIR --path P  the same with only these files or directories
  --path P           these files or directories to their places in the pool;
                     where one is there already nothing is changed at all,
                     unless --overwrite is given

A path is one in the pool: desktops/a.qcow2 is what lies at /srv/shared/desktops/a.qcow2 when the pool is mounted at \
/srv/shared (`hostler storage show` says where). Stop what uses a file before you overwrite it.

The operation is the coordinator's: it goes on when this client is interrupted, and `hostler operations cancel` stops it.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler backups list
  hostler backups restore latest --to /srv/restored
  hostler backups restore 3f2a9c1e --path desktops/a.qcow2 --reason \"deleted by mistake\"
  hostler backups restore 3f2a9c1e --path desktops/a.qcow2 --path desktops/b.qcow2 --overwrite
  hostler backups restore 3f2a9c1e --to /srv/look --path desktops"
)]
pub(crate) struct Restore {
    /// The backup: its id, the beginning of it, or `latest`
    id: BackupId,
    /// Into this directory of the pool's host, which is empty or absent
    #[arg(long, value_name = "DIR")]
    to: Option<String>,
    /// Only this file or directory of the pool; may be given again
    #[arg(long, value_name = "PATH")]
    path: Vec<PoolPath>,
    /// Replace what is there: a directory as a whole, so that files which came into it since the backup are lost
    #[arg(long, requires = "path", conflicts_with = "to")]
    overwrite: bool,
    #[command(flatten)]
    pool: OfPool,
    #[command(flatten)]
    asking: Asking,
}

impl Restore {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let request = RestoreBackupRequest {
            pool: self.pool.name(),
            id: self.id.to_string(),
            target: self.to.clone().unwrap_or_default(),
            paths: self.path.iter().map(ToString::to_string).collect(),
            overwrite: self.overwrite,
        };
        self.asking.run(Asked::RestoreBackup(request), context).await
    }
}
