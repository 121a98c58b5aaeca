//! The two fixed protocols, held against their tables field by field: names, numbers, types and labels.

#![allow(clippy::unwrap_used)] // Helper functions of tests are not taken for tests by clippy.

use std::collections::BTreeMap;

use hostler_common::rpc::DESCRIPTORS;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

fn file(package: &str) -> FileDescriptorProto {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let mut of_package = files.into_iter().filter(|file| file.package() == package);
    let found = of_package.next().unwrap();
    assert!(of_package.next().is_none(), "{package} is one file");
    found
}

/// `name number type`, with `repeated` before it.
fn field(field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::String => "string".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Uint32 => "uint32".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Message | Type::Enum => field.type_name().to_owned(),
        other => format!("{other:?}"),
    };
    let repeated = if field.label() == Label::Repeated {
        "repeated "
    } else {
        ""
    };
    format!("{repeated}{} {} {kind}", field.name(), field.number())
}

fn messages(prefix: &str, all: &[DescriptorProto], into: &mut BTreeMap<String, Vec<String>>) {
    for message in all {
        assert!(message.oneof_decl.is_empty() && message.extension.is_empty());
        let name = format!("{prefix}{}", message.name());
        into.insert(name.clone(), message.field.iter().map(field).collect());
        messages(&format!("{name}."), &message.nested_type, into);
    }
}

fn table(of: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let row = |(name, fields): &(&str, &[&str])| {
        (
            (*name).to_owned(),
            fields.iter().map(ToString::to_string).collect(),
        )
    };
    of.iter().map(row).collect()
}

#[test]
fn operations_v1_has_exactly_the_messages_of_its_table() {
    let file = file("operations.v1");
    let mut compiled = BTreeMap::new();
    messages("", &file.message_type, &mut compiled);
    let streamed: &[&str] = &["state 1 .operations.v1.OperationState", "msg 2 string"];
    let expected = table(&[
        ("ListHypervisorsRequest", &[]),
        ("CreateBackupRequest", &[]),
        (
            "ListHypervisorsResponse",
            &["repeated hypervisors 1 .operations.v1.ListHypervisorsResponseHypervisor"],
        ),
        (
            "ListHypervisorsResponseHypervisor",
            &[
                "id 1 string",
                "cpu 2 int32",
                "ram 3 int32",
                "repeated capabilities 4 .operations.v1.HypervisorCapabilities",
                "state 5 .operations.v1.HypervisorState",
                "repeated gpus 6 .operations.v1.HypervisorGPU",
            ],
        ),
        ("HypervisorGPU", &["brand 1 string", "model 2 string"]),
        ("CreateHypervisorRequest", &["id 1 string"]),
        ("DestroyHypervisorRequest", &["id 1 string"]),
        ("CreateHypervisorsRequest", &["repeated ids 1 string"]),
        ("DestroyHypervisorsRequest", &["repeated ids 1 string"]),
        ("ExpandStorageRequest", &["min_bytes 1 int32"]),
        ("ShrinkStorageRequest", &["max_bytes 1 int32"]),
        ("CreateHypervisorResponse", streamed),
        ("CreateHypervisorsResponse", streamed),
        ("DestroyHypervisorResponse", streamed),
        ("DestroyHypervisorsResponse", streamed),
        ("ExpandStorageResponse", streamed),
        ("ShrinkStorageResponse", streamed),
        ("CreateBackupResponse", streamed),
    ]);
    assert_eq!(compiled, expected);
}

#[test]
fn operations_v1_has_exactly_the_rpcs_of_its_table() {
    let file = file("operations.v1");
    assert_eq!(file.service.len(), 1);
    assert_eq!(file.service[0].name(), "OperationsService");
    let compiled: Vec<_> = file.service[0]
        .method
        .iter()
        .map(|method| {
            assert!(!method.client_streaming());
            let stream = if method.server_streaming() { "stream " } else { "" };
            format!(
                "{}({}) {stream}{}",
                method.name(),
                method.input_type(),
                method.output_type()
            )
        })
        .collect();
    let streamed = [
        "CreateHypervisor",
        "CreateHypervisors",
        "DestroyHypervisor",
        "DestroyHypervisors",
        "ExpandStorage",
        "ShrinkStorage",
        "CreateBackup",
    ];
    let mut expected = vec![
        "ListHypervisors(.operations.v1.ListHypervisorsRequest) .operations.v1.ListHypervisorsResponse"
            .to_owned(),
    ];
    expected
        .extend(streamed.map(|name| {
            format!("{name}(.operations.v1.{name}Request) stream .operations.v1.{name}Response")
        }));
    assert_eq!(compiled, expected);
}

#[test]
fn operations_v1_has_exactly_the_enums_of_its_table() {
    let compiled: BTreeMap<_, Vec<_>> = file("operations.v1")
        .enum_type
        .iter()
        .map(|of| {
            let values = of
                .value
                .iter()
                .map(|value| format!("{} {}", value.name(), value.number()));
            (of.name().to_owned(), values.collect())
        })
        .collect();
    let expected = table(&[
        (
            "OperationState",
            &[
                "OPERATION_STATE_UNSPECIFIED 0",
                "OPERATION_STATE_SCHEDULED 1",
                "OPERATION_STATE_ACTIVE 2",
                "OPERATION_STATE_FAILED 3",
                "OPERATION_STATE_COMPLETED 4",
            ],
        ),
        (
            "HypervisorCapabilities",
            &[
                "HYPERVISOR_CAPABILITIES_UNSPECIFIED 0",
                "HYPERVISOR_CAPABILITIES_STORAGE 1",
                "HYPERVISOR_CAPABILITIES_GPU 2",
            ],
        ),
        (
            "HypervisorState",
            &[
                "HYPERVISOR_STATE_UNSPECIFIED 0",
                "HYPERVISOR_STATE_UNKNOWN 1",
                "HYPERVISOR_STATE_AVAILABLE_TO_CREATE 2",
                "HYPERVISOR_STATE_AVAILABLE_TO_DESTROY 3",
            ],
        ),
    ]);
    assert_eq!(compiled, expected);
}

#[test]
fn n0stack_has_exactly_the_messages_of_its_table() {
    let file = file("n0stack.protobuf");
    assert!(file.service.is_empty() && file.enum_type.is_empty());
    let mut compiled = BTreeMap::new();
    messages("", &file.message_type, &mut compiled);
    let expected = table(&[
        (
            "Operation",
            &[
                "operation_request 1 .google.protobuf.Any",
                "locked_until 2 .google.protobuf.Timestamp",
                "is_disabled_cancel 3 bool",
                "proposing_peer_token 4 string",
                "repeated logs 5 .n0stack.protobuf.Operation.Log",
            ],
        ),
        (
            "Operation.Log",
            &["ts 1 .google.protobuf.Timestamp", "message 2 string"],
        ),
        (
            "ProposeOperationRequest",
            &[
                "name 1 string",
                "project 2 string",
                "lock_for_seconds 3 uint32",
                "log_message 4 string",
                "is_disabled_cancel 5 bool",
                "proposing_peer_token 6 string",
            ],
        ),
    ]);
    assert_eq!(compiled, expected);
}
