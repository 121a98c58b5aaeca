//! A request as JSON, by its descriptor, without secrets.
//!
//! Invariant: what is secret is left out by the name of its field, wherever it stands, so that a new message cannot bring it
//! in by another way.

use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::Type;
use serde_json::{Map, Value};

use super::shape::{Field, Shape, Shapes};

/// The largest request that is written, in bytes. A restore may name a thousand files.
const REQUEST_AT_MOST: usize = 16 * 1024;

/// Fields that let somebody act for another.
const SECRETS: [&str; 3] = ["token", "proposing_peer_token", "secret"];

/// The first message of a gRPC body for `path`. A sentence when it cannot be told.
pub(super) fn json(path: &str, body: &[u8]) -> Value {
    let shapes = Shapes::all();
    let Some(shape) = shapes.of_request(path) else {
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
    match object(shapes, shape, message, Map::new()) {
        Some(object) => object.into(),
        None => "malformed".into(),
    }
}

/// Enough of a body for [`json`].
pub(super) const BODY_AT_MOST: usize = REQUEST_AT_MOST + 5;

/// `object` with what `message` says. None for what is malformed, here and below. It ends: no message holds itself, which a
/// test of the shapes looks after.
fn object(
    shapes: &Shapes,
    shape: &Shape,
    mut message: &[u8],
    mut object: Map<String, Value>,
) -> Option<Map<String, Value>> {
    while !message.is_empty() {
        let (number, wire) = decode_key(&mut message).ok()?;
        let Some(field) = shape.field(number) else {
            skip_field(wire, number, &mut message, DecodeContext::default()).ok()?;
            continue;
        };
        // What comes twice counts as the service takes it: lists and messages are joined, of all else the last one stays.
        let earlier = object.remove(&field.name);
        let told = match field.repeated {
            true => {
                let mut all = match earlier {
                    Some(Value::Array(all)) => all,
                    _ => Vec::new(),
                };
                all.extend(values(shapes, field, wire, &mut message, None)?);
                all.into()
            }
            false => values(shapes, field, wire, &mut message, earlier)?.pop()?,
        };
        let secret = SECRETS.contains(&field.name.as_str());
        object.insert(
            field.name.clone(),
            if secret { "(not kept)".into() } else { told },
        );
    }
    Some(object)
}

/// One value, or the many of a packed field.
fn values(
    shapes: &Shapes,
    field: &Field,
    wire: WireType,
    message: &mut &[u8],
    earlier: Option<Value>,
) -> Option<Vec<Value>> {
    let expected = wire_of(field.kind);
    if wire != WireType::LengthDelimited {
        return (wire == expected).then_some(vec![number(field.kind, wire, message)?]);
    }
    let length = usize::try_from(decode_varint(message).ok()?).ok()?;
    let (mut bytes, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(match field.kind {
        Type::String => vec![str::from_utf8(bytes).ok()?.into()],
        Type::Bytes => vec![format!("{length} bytes").into()],
        Type::Message | Type::Group => {
            let earlier = match earlier {
                Some(Value::Object(earlier)) => earlier,
                _ => Map::new(),
            };
            vec![object(shapes, shapes.named(&field.message)?, bytes, earlier)?.into()]
        }
        kind if field.repeated => {
            let mut all = Vec::new();
            while !bytes.is_empty() {
                all.push(number(kind, expected, &mut bytes)?);
            }
            all
        }
        _ => return None,
    })
}

/// How a single value of it is written (protobuf's encoding, "message structure").
fn wire_of(kind: Type) -> WireType {
    match kind {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => WireType::SixtyFourBit,
        Type::Float | Type::Fixed32 | Type::Sfixed32 => WireType::ThirtyTwoBit,
        Type::String | Type::Bytes | Type::Message | Type::Group => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

fn number(kind: Type, wire: WireType, message: &mut &[u8]) -> Option<Value> {
    let raw = match wire {
        WireType::Varint => decode_varint(message).ok()?,
        WireType::SixtyFourBit => message.try_get_u64_le().ok()?,
        WireType::ThirtyTwoBit => message.try_get_u32_le().ok()?.into(),
        _ => return None,
    };
    // A narrow number is the low half of what is written; a negative one is written with all its upper bits set.
    let low = raw as u32;
    Some(match kind {
        Type::Bool => (raw != 0).into(),
        Type::Int32 | Type::Enum | Type::Sfixed32 => (low as i32).into(),
        Type::Int64 | Type::Sfixed64 => (raw as i64).into(),
        Type::Uint32 | Type::Fixed32 => low.into(),
        Type::Uint64 | Type::Fixed64 => raw.into(),
        Type::Sint32 => ((low >> 1) as i32 ^ -((low & 1) as i32)).into(),
        Type::Sint64 => ((raw >> 1) as i64 ^ -((raw & 1) as i64)).into(),
        Type::Float => f32::from_bits(low).into(),
        Type::Double => f64::from_bits(raw).into(),
        Type::String | Type::Bytes | Type::Message | Type::Group => return None,
    })
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
    fn what_comes_twice_is_told_as_the_service_takes_it() {
        let half = |proposal| {
            let proposal = Some(proposal);
            let reason = String::new();
            ProposeOperationRequest { proposal, reason }.encode_to_vec()
        };
        let mut message = half(n0stack::ProposeOperationRequest {
            name: "hv7".into(),
            ..Default::default()
        });
        message.extend(half(n0stack::ProposeOperationRequest {
            proposing_peer_token: "a-secret".into(),
            ..Default::default()
        }));
        let whole = ProposeOperationRequest::decode(&message[..]).unwrap();
        let told = json("/hostler.fleet.v1.FleetService/ProposeOperation", &framed(&whole));
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        assert_eq!(
            json("/hostler.fleet.v1.FleetService/ProposeOperation", &body),
            told
        );
        assert_eq!(
            told["proposal"],
            serde_json::json!({"name": "hv7", "proposing_peer_token": "(not kept)"})
        );
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
