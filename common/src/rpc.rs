//! The generated rpc, by package. The comments in `proto/` document it.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/rpc.rs"));

/// Every compiled file descriptor, a `google.protobuf.FileDescriptorSet`: for reflection and tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
