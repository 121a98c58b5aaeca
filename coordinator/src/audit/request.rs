//! A request as JSON, by its descriptor, without secrets.
//!
//! Invariant: what is secret is left out by the name of its field, wherever it stands, so that a new message cannot bring it
//! in by another way.

use std::sync::LazyLock;

use hostler_common::rpc::DESCRIPTORS;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value as Field};
use serde_json::{Map, Value};

/// The largest request that is written, in bytes. A restore may name a thousand files.
const REQUEST_AT_MOST: usize = 16 * 1024;

/// Fields that let somebody act for another.
const SECRETS: [&str; 3] = ["token", "proposing_peer_token", "secret"];

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

/// The first message of a gRPC body for `path`. A sentence when it cannot be told.
pub(super) fn json(path: &str, body: &[u8]) -> Value {
    let Some(descriptor) = descriptor(path) else {
        return Value::Null;
    };
    // One byte says whether it is compressed, which is not offered; four, how long it is.
    let Some((&[0, a, b, c, d], message)) = body.split_first_chunk() else {
        return Value::Null;
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > REQUEST_AT_MOST {
        return format!("{length} bytes, too long for this log").into();
    }
    let Some(message) = message.get(..length) else {
        return Value::Null;
    };
    match DynamicMessage::decode(descriptor, message) {
        Ok(message) => object(&message),
        Err(_) => "malformed".into(),
    }
}

/// Enough of a body for [`json`].
pub(super) const BODY_AT_MOST: usize = REQUEST_AT_MOST + 5;

fn descriptor(path: &str) -> Option<MessageDescriptor> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = POOL.as_ref()?.get_service_by_name(service)?;
    let method = service.methods().find(|known| known.name() == method)?;
    Some(method.input())
}

fn object(message: &DynamicMessage) -> Value {
    let mut object = Map::new();
    for (field, value) in message.fields() {
        let json = match SECRETS.contains(&field.name()) {
            true => "(not kept)".into(),
            false => json_of(value),
        };
        object.insert(field.name().to_owned(), json);
    }
    object.into()
}

fn json_of(value: &Field) -> Value {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) | Field::EnumNumber(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(value) => value.clone().into(),
        Field::Bytes(value) => format!("{} bytes", value.len()).into(),
        Field::Message(value) => object(value),
        Field::List(values) => values.iter().map(json_of).collect(),
        Field::Map(values) => format!("{} entries", values.len()).into(),
    }
}

#[cfg(test)]
mod tests {
    use hostler_common::rpc::hostler::fleet::v1::ProposeOperationRequest;
    use hostler_common::rpc::hostler::site::v1::CreateTokenRequest;
    use hostler_common::rpc::n0stack::protobuf as n0stack;
    use prost::Message;

    use super::*;

    fn framed(message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        body.extend(bytes);
        body
    }

    #[test]
    fn a_request_is_told_by_its_fields_and_secrets_are_left_out() {
        let request = CreateTokenRequest {
            host: "hv7".into(),
            expires_seconds: 60,
        };
        assert_eq!(
            json("/hostler.site.v1.SiteService/CreateToken", &framed(&request)),
            serde_json::json!({"host": "hv7", "expires_seconds": 60})
        );
        let request = ProposeOperationRequest {
            proposal: Some(n0stack::ProposeOperationRequest {
                name: "hv7".into(),
                proposing_peer_token: "a-secret".into(),
                ..Default::default()
            }),
            reason: "swap".into(),
        };
        let told = json(
            "/hostler.fleet.v1.FleetService/ProposeOperation",
            &framed(&request),
        );
        assert_eq!(told["proposal"]["name"], "hv7");
        assert!(!told.to_string().contains("a-secret"), "{told}");
    }

    #[test]
    fn what_is_malformed_or_unknown_or_long_does_no_harm() {
        let path = "/hostler.site.v1.SiteService/CreateToken";
        for (body, told) in [
            (&[][..], Value::Null),
            (&[0, 0, 0, 0, 9, 1], Value::Null),
            (&[1, 0, 0, 0, 0], Value::Null),
            (&[0, 0, 0, 0, 1, 0xff], "malformed".into()),
            (&[0, 1, 0, 0, 0], "16777216 bytes, too long for this log".into()),
        ] {
            assert_eq!(json(path, body), told, "{body:?}");
        }
        assert_eq!(json("/x.Y/Z", &[0, 0, 0, 0, 0]), Value::Null);
    }
}
