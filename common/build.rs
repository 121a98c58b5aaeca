//! Compiles `proto/` into the `rpc` module, without a system `protoc`.
use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 6] = [
    "operations/v1/operations.proto",
    "n0stack/protobuf/operation.proto",
    "hostler/agent/v1/agent.proto",
    "hostler/enrol/v1/enrol.proto",
    "hostler/fleet/v1/fleet.proto",
    "hostler/site/v1/site.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../proto");
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(PROTOS.map(|proto| root.join(proto)), [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Served by reflection, and held against the fixed tables by a test.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut names = prost_build::Config::new();
    // The type URLs of requests that are stored as Any.
    names
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com");
    // Stored by the coordinator and printed by the client, both as JSON.
    for message in [
        "Inventory",
        "Gpu",
        "SharedStorage",
        "Libvirt",
        "Domain",
        "PoolReport",
        "PoolDevice",
        "Backup",
    ] {
        let path = format!("hostler.agent.v1.{message}");
        names.type_attribute(
            &path,
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]",
        );
    }
    tonic_prost_build::configure()
        .codec_path("crate::codec::StrictCodec")
        .include_file("rpc.rs")
        .compile_fds_with_config(descriptors, names)?;
    Ok(())
}
