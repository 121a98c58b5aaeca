//! What clients send: any rpc, any role, any bytes.

use std::sync::LazyLock;

use hostler_common::rpc::DESCRIPTORS;
use hostler_common::rpc::operations::v1::CreateHypervisorResponse;
use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use super::world::{self, Until, bounded, frame};

/// Whom an input may speak as.
const PEERS: [&str; 6] = [
    "client/operator/test",
    "client/admin/test",
    "client/viewer/test",
    "client/operator/other",
    "agent/h1",
    "coordinator/c1",
];

/// Codes that a client never deserves: a bug of ours. DATA_LOSS is for a store that is damaged.
const NEVER: [Code; 3] = [Code::Internal, Code::Unknown, Code::DataLoss];

/// What the coordinator of this test serves to clients, and to hosts that have no certificate yet.
const SERVED: [&str; 4] = [
    "/operations.v1.OperationsService/",
    "/hostler.fleet.v1.FleetService/",
    "/hostler.site.v1.SiteService/",
    "/hostler.enrol.v1.EnrolService/",
];

/// Every rpc of theirs.
static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("our descriptors");
    let mut paths = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths.retain(|path| SERVED.iter().any(|service| path.starts_with(service)));
    paths.sort_unstable();
    paths
});

/// Which rpc, as whom, how it is framed, and the body. The input that calls `path` so.
///
/// # Panics
/// When there is no such rpc.
pub fn input(path: &str, message: &[u8]) -> Vec<u8> {
    assert!(PATHS.iter().any(|known| known == path), "there is no {path}");
    let [low, high] = mark(path).to_le_bytes();
    let mut input = vec![low, high, 1, 0];
    input.extend_from_slice(message);
    input
}

/// What stands for an rpc in an input, whatever other rpcs there are: FNV-1a, folded.
fn mark(path: &str) -> u16 {
    let mixed = path.bytes().fold(0x811c_9dc5_u32, |mixed, byte| {
        (mixed ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (mixed ^ (mixed >> 16)) as u16
}

/// # Panics
/// When an answer is a fault of ours, does not come, or is too long.
pub fn run(data: &[u8]) {
    let Some((&[low, high, who, framing], message)) = data.split_first_chunk() else {
        return;
    };
    let wanted = u16::from_le_bytes([low, high]);
    let named = PATHS.iter().find(|path| mark(path) == wanted);
    let path = named.unwrap_or_else(|| &PATHS[usize::from(wanted) % PATHS.len()]);
    let who = PEERS[usize::from(who) % PEERS.len()];
    world::with(|world| {
        let message = world.fill(message);
        let mut headers = HeaderMap::new();
        let body = match framing % 4 {
            // As it is, head and all.
            1 => message,
            // The first half is also why it is asked for.
            2 => {
                let reason = &message[..message.len() / 2];
                if let Ok(reason) = HeaderValue::from_bytes(&encoded(reason)) {
                    headers.insert("hostler-reason-bin", reason);
                }
                frame(&message)
            }
            _ => frame(&message),
        };
        let until = match path.ends_with("/ListAudit") {
            true => Until::Head,
            false => Until::First,
        };
        let answer = world.call(path, who, headers, body, until);
        if let Some(code) = answer.code.map(Code::from) {
            // What is not framed is between tonic and its sender.
            let ours = framing % 4 != 1 && NEVER.contains(&code);
            assert!(!ours, "{path} as {who} is answered with {code:?}");
        }
        if path.contains("/Expunge") && !answer.messages.is_empty() {
            world.expunged();
        }
        let verbs = [
            "Create", "Destroy", "Expand", "Shrink", "Verify", "Restore", "Delete",
        ];
        let is_on_the_fleet = !path.starts_with("/hostler.site.");
        let is_stream_of_words =
            is_on_the_fleet && verbs.iter().any(|verb| path.contains(&format!("/{verb}")));
        for message in answer.messages.iter().filter(|_| is_stream_of_words) {
            // All of them have their words in the same field.
            let said = CreateHypervisorResponse::decode(message.as_slice()).expect("an answer");
            bounded(&said.msg);
            assert!(!said.msg.is_empty(), "{path} is answered without words");
        }
        world.check();
    });
}

/// Base64 as metadata has it.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let padded = [three[0], *three.get(1).unwrap_or(&0), *three.get(2).unwrap_or(&0)];
        let number = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        let digits = [18, 12, 6, 0].map(|shift| DIGITS[(number >> shift) as usize & 63]);
        text.extend_from_slice(&digits[..=three.len()]);
    }
    text
}
