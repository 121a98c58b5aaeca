//! The arguments that every change has. What follows is `follow`'s.

use clap::Args;
use hostler_common::id::PoolName;

use super::Context;
use super::follow::{self, Asked, Detach, Wish};
use crate::failure::Failure;

/// The coordinator keeps so many characters, and HTTP/2 would not carry a novel.
const REASON_AT_MOST: usize = 500;

/// Reads a reason that is not too long.
pub(super) fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=REASON_AT_MOST => Ok(text.to_owned()),
        count => Err(format!(
            "it has {count} characters; at most {REASON_AT_MOST} are kept"
        )),
    }
}

/// The same, and not empty.
pub(super) fn why(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("it is empty; say why in a few words".into()),
        false => reason(text),
    }
}

/// How a change is asked for.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// Why, for the record; at most 500 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(super) reason: Option<String>,
    /// Return once the coordinator has accepted it
    #[arg(long, alias = "no-wait")]
    pub(super) detach: bool,
}

impl Asking {
    /// Asks for it and follows it.
    pub(super) async fn run(&self, asked: Asked, context: &Context) -> Result<(), Failure> {
        let wish = Wish {
            asked,
            reason: self.reason.clone(),
        };
        let detach = match self.detach {
            true => Detach::OnceAccepted,
            false => Detach::Never,
        };
        follow::change(context, wish, detach).await
    }
}

/// Which pool.
#[derive(Debug, Args)]
pub(super) struct OfPool {
    /// Which pool [default: the default pool, which `hostler storage list` marks]
    #[arg(long, value_name = "POOL")]
    pool: Option<PoolName>,
}

impl OfPool {
    /// As a request names it.
    pub(super) fn name(&self) -> String {
        self.pool.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}
