//! Attributes of nodes: read with their defaults, taken out, put in.

use super::super::messages::attribute_proto::AttributeType;
use super::super::messages::{AttributeProto, NodeProto};

fn find<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

pub(super) fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    find(node, name).map_or(default, AttributeProto::i)
}

pub(super) fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    find(node, name).map_or(default, AttributeProto::f)
}

/// Removes an attribute and gives it.
pub(super) fn take(node: &mut NodeProto, name: &str) -> Option<AttributeProto> {
    let index = node.attribute.iter().position(|attribute| attribute.name() == name)?;
    Some(node.attribute.remove(index))
}

/// Puts an integer in, for one of the same name if there is one.
pub(super) fn set_integer(node: &mut NodeProto, name: &str, value: i64) {
    take(node, name);
    let mut attribute = named(name, AttributeType::INT);
    attribute.set_i(value);
    node.attribute.push(attribute);
}

/// Likewise a text.
pub(super) fn set_text(node: &mut NodeProto, name: &str, value: &str) {
    take(node, name);
    let mut attribute = named(name, AttributeType::STRING);
    attribute.set_s(value.as_bytes().to_vec());
    node.attribute.push(attribute);
}

fn named(name: &str, of: AttributeType) -> AttributeProto {
    let mut attribute = AttributeProto::new();
    attribute.set_name(name.to_owned());
    attribute.set_type(of);
    attribute
}
