//! `hostler backups verify`.

use clap::Args;
use hostler_common::operation::BackupId;
use hostler_common::rpc::hostler::fleet::v1::VerifyBackupRequest;

use crate::command::Context;
use crate::command::asking::{Asking, OfPool};
use crate::command::follow::Asked;
use crate::failure::Failure;

/// Checks the repository of a storage pool
#[derive(Debug, Args)]
#[command(
    long_about = "\
Checks the repository of a storage pool: that it is whole, and that its data can be read back and are what was written. With \
an id, that backup must be there and its files readable too. Reading everything back takes as long as a restore; \
--read 5 reads a twentieth.

Needs the role operator.",
    after_long_help = "\
Examples:
  hostler backups verify
  hostler backups verify latest --read 5
  hostler backups verify 3f2a9c1e --pool archive"
)]
pub(crate) struct Verify {
    /// A backup that must be there: its id, the beginning of it, or `latest`
    id: Option<BackupId>,
    /// How much of the data is read back, 1 to 100 [default: 100]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    read: Option<u32>,
    #[command(flatten)]
    pool: OfPool,
    #[command(flatten)]
    asking: Asking,
}

impl Verify {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let request = VerifyBackupRequest {
            pool: self.pool.name(),
            id: self.id.as_ref().map(ToString::to_string).unwrap_or_default(),
            read_percent: self.read.unwrap_or(100),
        };
        self.asking.run(Asked::VerifyBackup(request), context).await
    }
}
