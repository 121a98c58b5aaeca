//! Agents' live streams: who is connected, and what goes to and fro.

mod answers;
pub mod asks;
mod conversation;
pub mod registry;
mod rivals;
pub mod service;
pub mod version;
