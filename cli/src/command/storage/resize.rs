//! `hostler storage expand` and `shrink`.

use clap::Args;
use hostler_common::bytes::Bytes;
use hostler_common::rpc::hostler::fleet::v1::{ExpandStorageRequest, ShrinkStorageRequest};

use crate::command::Context;
use crate::command::asking::{Asking, OfPool};
use crate::command::follow::Asked;
use crate::failure::Failure;

/// Grows a storage pool by at least a size
#[derive(Debug, Args)]
#[command(
    long_about = "\
Grows a storage pool by at least SIZE, and by as little more as its devices allow: first devices that were shrunk \
take back what they gave, then spare devices are added. With too little to spare nothing is changed. --dry-run says what \
would be done, device by device.

The operation is the coordinator's: it goes on when this client is interrupted. Asked for again \
after it has ended, a pool grows again.

Needs the role operator.",
    after_long_help = "\
Sizes: 10GiB and 1536MiB count by 1024, 1.5TB and 500MB by 1000, a lone letter as in 10G by 1024, a lone number is bytes.

Examples:
  hostler storage expand 10GiB --dry-run
  hostler storage expand 10GiB --reason \"new class in autumn\"
  hostler storage expand 1.5TB --pool archive --detach"
)]
pub(crate) struct Expand {
    /// By at least this, as 10GiB or 1.5TB
    #[arg(value_name = "SIZE", value_parser = size)]
    min: Bytes,
    #[command(flatten)]
    resize: Resize,
}

/// Shrinks a storage pool by at most a size
#[derive(Debug, Args)]
#[command(
    long_about = "\
Shrinks a storage pool by at most SIZE, by as much of it as is safe: never below what it holds and its reserve, which \
`hostler storage show` has as its smallest size. Data is moved first, which can take long; whole devices that fit are given \
up and are spare again. With nothing to give nothing is changed. --dry-run says what would be done, device by device.

The operation is the coordinator's: it goes on when this client is interrupted, and `hostler operations cancel` stops it.

Needs the role operator.",
    after_long_help = "\
Sizes: 10GiB and 1536MiB count by 1024, 1.5TB and 500MB by 1000, a lone letter as in 10G by 1024, a lone number is bytes.

Examples:
  hostler storage shrink 10GiB --dry-run
  hostler storage shrink 10GiB --reason \"disk for node7\"
  hostler storage shrink 2TiB --pool archive --json | jq -r 'select(.measure).measure.percent'"
)]
pub(crate) struct Shrink {
    /// By at most this, as 10GiB or 1.5TB
    #[arg(value_name = "SIZE", value_parser = size)]
    max: Bytes,
    #[command(flatten)]
    resize: Resize,
}

#[derive(Debug, Args)]
struct Resize {
    #[command(flatten)]
    pool: OfPool,
    /// Only say what would be done, device by device
    #[arg(long, conflicts_with_all = ["reason", "detach"])]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Reads a size that is not zero.
fn size(text: &str) -> Result<Bytes, String> {
    match text.parse() {
        Ok(Bytes::ZERO) => Err("that is nothing; give a size greater than zero, as 10GiB".into()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

impl Expand {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let request = ExpandStorageRequest {
            pool: self.resize.pool.name(),
            min_bytes: self.min.0,
            dry_run: self.resize.dry_run,
        };
        self.resize
            .asking
            .run(Asked::ExpandStorage(request), context)
            .await
    }
}

impl Shrink {
    /// Runs it.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let request = ShrinkStorageRequest {
            pool: self.resize.pool.name(),
            max_bytes: self.max.0,
            dry_run: self.resize.dry_run,
        };
        self.resize
            .asking
            .run(Asked::ShrinkStorage(request), context)
            .await
    }
}
