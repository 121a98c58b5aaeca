//! A coordinator's services as bytes reach them: every rpc behind the role table, with the real codec, engine and store,
//! without a network.

pub mod calls;
pub mod sessions;
mod world;

pub use world::{TOKEN_ID_PLACEHOLDER, TOKEN_PLACEHOLDER};
