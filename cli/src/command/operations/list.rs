//! `hostler operations list`.

use clap::Args;
use hostler_common::id::ResourceName;
use hostler_common::rpc::hostler::fleet::v1::ListOperationsRequest;

use crate::command::Context;
use crate::connect::{Call, Coordinator};
use crate::failure::Failure;
use crate::output::view::{Operation, Operations};
use crate::output::{self, Format, table};

/// The most that the coordinator gives at once.
const LARGEST_PAGE: u32 = 1000;

/// Lists operations, newest first
#[derive(Debug, Args)]
#[command(
    long_about = "\
Lists operations, newest first: who asked for what, where it stands, and the last word on it. RESOURCE is a \
hypervisor or a storage pool.

On a narrow terminal the columns that matter least are left out; --json and a pipe have them all.

Needs the role viewer.",
    after_long_help = "\
Examples:
  hostler operations list
  hostler operations list --unended
  hostler operations list --resource hv1 --limit 5
  hostler operations list --output json | jq -r '.operations[] | select(.needs_attention).id'"
)]
pub(crate) struct List {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only those on this hypervisor or pool
    #[arg(long, value_name = "NAME")]
    resource: Option<ResourceName>,
    /// Only those that have not ended
    #[arg(long)]
    unended: bool,
}

impl List {
    /// Prints the list.
    pub(crate) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let coordinator = Coordinator::connect(&context.settings).await?;
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut list: Vec<Operation> = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListOperationsRequest {
                page_size: u32::try_from(limit - list.len())
                    .unwrap_or(LARGEST_PAGE)
                    .min(LARGEST_PAGE),
                page_token,
                resource: self
                    .resource
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                unended: self.unended,
            };
            let page = coordinator
                .answer(Call::read("ListOperations"), async {
                    coordinator.fleet().list_operations(request).await
                })
                .await?;
            list.extend(page.operations.into_iter().map(Operation::listed));
            list.truncate(limit);
            if list.len() == limit || page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        match context.settings.output {
            Format::Table => output::print(&table::operations(&list, context.terminal)),
            Format::Json => output::print_document(&Operations { operations: &list }),
        }
    }
}
