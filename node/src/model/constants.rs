//! What constants take in memory: those that are stored, and those that free nodes make of them. No run
//! tells the sizes of the latter, so all but filled tensors are estimates.

use std::collections::HashMap;

use stormo_protocol::limits::OBJECT_BYTES_MAX;
use stormo_protocol::tensor::DType;

use super::data;
use super::error::ModelError;
use super::links::Links;
use super::messages::{GraphProto, NodeProto, TensorProto};

/// Bytes of an element where a node does not say which: zeros of single precision.
const FLOAT_BYTES: u64 = 4;

/// Tensor -> bytes; 0 for what is no constant.
pub(super) fn constant_bytes(proto: &GraphProto, links: &Links) -> Vec<u64> {
    let sparse = proto.sparse_initializer.iter().map(|sparse| &*sparse.values);
    let stored = proto.initializer.iter().chain(sparse);
    let stored: HashMap<&str, &TensorProto> = stored.map(|tensor| (tensor.name(), tensor)).collect();
    let size = |name: &String| stored.get(name.as_str()).map_or(0, |tensor| data::stored_bytes(tensor));
    let mut bytes: Vec<u64> = links.names.iter().map(size).collect();
    for node in links.order.iter().copied().filter(|node| links.free[*node]) {
        let largest_read = links.reads[node].iter().map(|tensor| bytes[*tensor]).max().unwrap_or(0);
        let made = made_bytes(&proto.node[node], |name| match links.maker[links.find(name)?] {
            None => stored.get(name).copied(),
            Some(node) => value_of(&proto.node[node]),
        });
        links.writes[node].iter().for_each(|tensor| bytes[*tensor] = made.unwrap_or(largest_read));
    }
    bytes
}

/// Refuses a constant that no machine should be asked to fill.
///
/// # Errors
/// `HugeConstant`.
pub(super) fn check(proto: &GraphProto, links: &Links) -> Result<(), ModelError> {
    let bytes = constant_bytes(proto, links);
    match bytes.iter().position(|bytes| *bytes > OBJECT_BYTES_MAX) {
        Some(tensor) => {
            Err(ModelError::HugeConstant { tensor: links.names[tensor].clone(), bytes: bytes[tensor] })
        }
        None => Ok(()),
    }
}

/// What a `Constant` gives, or a `ConstantOfShape` repeats.
pub(super) fn value_of(node: &NodeProto) -> Option<&TensorProto> {
    node.attribute.iter().find(|attribute| attribute.name() == "value")?.t.as_ref()
}

/// Bytes of what a free node makes, where that is not about as much as it reads.
fn made_bytes<'a>(node: &NodeProto, stored: impl Fn(&str) -> Option<&'a TensorProto>) -> Option<u64> {
    match node.op_type() {
        "Constant" => Some(value_of(node).map_or(0, data::stored_bytes)),
        // A few bytes that become a weight of hundreds of megabytes in the session.
        "ConstantOfShape" => {
            let shape = data::integers(stored(node.input.first()?)?)?;
            let element = value_of(node).and_then(|value| data::dtype_of(value.data_type()));
            let element_bytes = element.and_then(DType::bytes).unwrap_or(FLOAT_BYTES);
            let dims = shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(0));
            Some(dims.fold(element_bytes, u64::saturating_mul))
        }
        // ONNX Runtime computes with the small integers themselves.
        "DequantizeLinear" => Some(0),
        _ => None,
    }
}
