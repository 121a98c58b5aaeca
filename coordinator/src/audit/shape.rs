//! What the fields of requests are called, from the descriptors that are compiled in.
//!
//! It holds what the audit log needs and no more: a library's pool of descriptors takes a hundred times as much memory, for
//! good. It reads no request.

use std::collections::HashMap;
use std::sync::LazyLock;

use hostler_common::rpc::DESCRIPTORS;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    // What is compiled in decodes; a test looks.
    Shapes::from(FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default())
});

/// Every message that is known.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// The full name of its request, by an rpc's path as `/package.Service/Method`.
    requests: HashMap<String, Box<str>>,
    /// By full name.
    messages: HashMap<Box<str>, Shape>,
}

/// A message's fields.
#[derive(Debug)]
pub(super) struct Shape(Box<[Field]>);

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    number: u32,
    /// As in the descriptor.
    pub(super) name: String,
    /// Its type.
    pub(super) kind: Type,
    /// The full name of the message that it is; empty for all else.
    pub(super) message: Box<str>,
    /// Whether there may be many.
    pub(super) repeated: bool,
}

impl Shapes {
    /// Of everything that is compiled in.
    pub(super) fn all() -> &'static Self {
        &SHAPES
    }

    /// Of what is asked at `path`.
    pub(super) fn of_request(&self, path: &str) -> Option<&Shape> {
        self.named(self.requests.get(path)?)
    }

    /// Of the message of this full name.
    pub(super) fn named(&self, message: &str) -> Option<&Shape> {
        self.messages.get(message)
    }

    fn add(&mut self, prefix: &str, message: &DescriptorProto) {
        let name = format!("{prefix}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        let fields = message.field.iter().map(Field::from).collect();
        self.messages.insert(name.into(), Shape(fields));
    }
}

impl From<FileDescriptorSet> for Shapes {
    fn from(files: FileDescriptorSet) -> Self {
        let mut shapes = Self::default();
        for file in &files.file {
            for message in &file.message_type {
                shapes.add(file.package(), message);
            }
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    shapes.requests.insert(path, without_dot(method.input_type()));
                }
            }
        }
        shapes
    }
}

impl Shape {
    /// The field of this number.
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.0.iter().find(|field| field.number == number)
    }
}

impl From<&FieldDescriptorProto> for Field {
    fn from(field: &FieldDescriptorProto) -> Self {
        Self {
            // A descriptor's numbers are positive.
            number: field.number().unsigned_abs(),
            name: field.name().to_owned(),
            kind: field.r#type(),
            message: without_dot(field.type_name()),
            repeated: field.label() == Label::Repeated,
        }
    }
}

/// Descriptors write full names with a dot before them.
fn without_dot(name: &str) -> Box<str> {
    name.strip_prefix('.').unwrap_or(name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_that_is_compiled_in_has_the_shape_of_its_request_and_of_what_that_holds() {
        let shapes = Shapes::all();
        assert!(
            shapes
                .of_request("/operations.v1.OperationsService/CreateHypervisor")
                .is_some()
        );
        for (path, request) in &shapes.requests {
            assert!(shapes.named(request).is_some(), "{path}");
        }
        for field in shapes.messages.values().flat_map(|shape| &shape.0) {
            let held = field.message.is_empty() || field.kind == Type::Enum;
            assert!(held || shapes.named(&field.message).is_some(), "{field:?}");
        }
    }

    #[test]
    fn no_message_holds_itself() {
        fn depth(shapes: &Shapes, message: &str, within: usize) {
            assert!(within < 16, "{message} is within itself");
            let fields = shapes.named(message).into_iter().flat_map(|shape| &shape.0);
            for field in fields.filter(|field| field.kind == Type::Message) {
                depth(shapes, &field.message, within + 1);
            }
        }
        let shapes = Shapes::all();
        for request in shapes.requests.values() {
            depth(shapes, request, 0);
        }
    }
}
