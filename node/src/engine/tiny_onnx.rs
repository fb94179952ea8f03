//! Writes small ONNX models by hand: the calibration graphs, and the models of this room's tests.
//! Parsing and cutting real models is not done here.

use stormo_protocol::tensor::{DType, TensorSpec};

/// ONNX operator set that the models ask for.
const OPSET: u64 = 17;
/// Version of the file format that goes with it.
const IR_VERSION: u64 = 8;
/// `AttributeProto.type` of an integer.
const ATTRIBUTE_INT: u64 = 2;
/// `AttributeProto.type` of a list of integers.
const ATTRIBUTE_INTS: u64 = 7;
/// `TensorProto.data_location` of data outside the model.
const LOCATION_EXTERNAL: u64 = 1;

/// A node of a graph; attributes are lists of integers, one perhaps a single integer.
pub(super) struct Node<'a> {
    pub(super) op: &'a str,
    pub(super) inputs: &'a [&'a str],
    pub(super) outputs: &'a [&'a str],
    pub(super) ints: &'a [(&'a str, &'a [u64])],
    pub(super) int: Option<(&'a str, u64)>,
}

/// An initialiser whose bytes lie outside the model, under the name `location`.
pub(super) struct ExternalWeight<'a> {
    pub(super) spec: &'a TensorSpec,
    pub(super) location: &'a str,
}

/// The bytes of a model.
pub(super) fn model(
    nodes: &[Node<'_>],
    weights: &[ExternalWeight<'_>],
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Vec<u8> {
    file(graph(nodes, weights, inputs, outputs))
}

/// The bytes of a model whose outputs say no more than their names.
#[cfg(test)]
pub(super) fn model_of_bare_outputs(nodes: &[Node<'_>], inputs: &[TensorSpec], outputs: &[&str]) -> Vec<u8> {
    let mut graph = graph(nodes, &[], inputs, &[]);
    for name in outputs {
        graph.extend(bytes_field(12, &bytes_field(1, name.as_bytes())));
    }
    file(graph)
}

fn graph(
    nodes: &[Node<'_>],
    weights: &[ExternalWeight<'_>],
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Vec<u8> {
    let mut graph = bytes_field(2, b"graph");
    for node in nodes {
        graph.extend(bytes_field(1, &node_message(node)));
    }
    for weight in weights {
        graph.extend(bytes_field(5, &weight_message(weight)));
    }
    for spec in inputs {
        graph.extend(bytes_field(11, &value_message(spec)));
    }
    for spec in outputs {
        graph.extend(bytes_field(12, &value_message(spec)));
    }
    graph
}

fn file(graph: Vec<u8>) -> Vec<u8> {
    let mut model = number_field(1, IR_VERSION);
    model.extend(bytes_field(8, &number_field(2, OPSET)));
    model.extend(bytes_field(7, &graph));
    model
}

/// Name, element type and shape in one call.
pub(super) fn spec(name: &str, dtype: DType, shape: &[u64]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec() }
}

fn node_message(node: &Node<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    for input in node.inputs {
        message.extend(bytes_field(1, input.as_bytes()));
    }
    for output in node.outputs {
        message.extend(bytes_field(2, output.as_bytes()));
    }
    message.extend(bytes_field(4, node.op.as_bytes()));
    for (name, numbers) in node.ints {
        let mut attribute = bytes_field(1, name.as_bytes());
        for number in *numbers {
            attribute.extend(number_field(8, *number));
        }
        attribute.extend(number_field(20, ATTRIBUTE_INTS));
        message.extend(bytes_field(5, &attribute));
    }
    if let Some((name, number)) = node.int {
        let mut attribute = bytes_field(1, name.as_bytes());
        attribute.extend(number_field(3, number));
        attribute.extend(number_field(20, ATTRIBUTE_INT));
        message.extend(bytes_field(5, &attribute));
    }
    message
}

fn weight_message(weight: &ExternalWeight<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    for dimension in &weight.spec.shape {
        message.extend(number_field(1, *dimension));
    }
    message.extend(number_field(2, weight.spec.dtype as u64));
    message.extend(bytes_field(8, weight.spec.name.as_bytes()));
    let mut location = bytes_field(1, b"location");
    location.extend(bytes_field(2, weight.location.as_bytes()));
    message.extend(bytes_field(13, &location));
    message.extend(number_field(14, LOCATION_EXTERNAL));
    message
}

fn value_message(spec: &TensorSpec) -> Vec<u8> {
    let mut shape = Vec::new();
    for dimension in &spec.shape {
        // One of no elements is left open.
        let dimension = if *dimension == 0 { bytes_field(2, b"open") } else { number_field(1, *dimension) };
        shape.extend(bytes_field(1, &dimension));
    }
    let mut tensor = number_field(1, spec.dtype as u64);
    tensor.extend(bytes_field(2, &shape));
    let mut message = bytes_field(1, spec.name.as_bytes());
    message.extend(bytes_field(2, &bytes_field(1, &tensor)));
    message
}

fn number_field(field: u64, number: u64) -> Vec<u8> {
    let mut out = varint(field << 3);
    out.extend(varint(number));
    out
}

fn bytes_field(field: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(field << 3 | 2);
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}
