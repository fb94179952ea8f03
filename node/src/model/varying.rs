//! Tensors whose shape depends on the values of the input, not only on its shape: what the sample run
//! measured of them does not hold for the next input, so no cut may go through them.

use super::links::Links;
use super::messages::tensor_shape_proto::dimension::Value;
use super::messages::{FunctionProto, GraphProto, NodeProto, ValueInfoProto};
use super::shaping::{Functions, ShapedBy};

/// For each tensor, whether its shape may change while the input keeps its shape.
pub(super) fn varying_shapes(graph: &GraphProto, functions: &[FunctionProto], links: &Links) -> Vec<bool> {
    let functions = Functions::of(functions);
    let mut shapes = vec![false; links.names.len()];
    let mut values = shapes.clone();
    links.inputs.iter().for_each(|input| values[*input] = true);
    for index in links.order.iter().copied().filter(|index| !links.free[*index]) {
        let node = &graph.node[index];
        let reads = &links.reads[index];
        let any = |flags: &[bool]| reads.iter().any(|tensor| flags[*tensor]);
        let operand = |position: &usize| node.input.get(*position).and_then(|name| links.find(name));
        let operand_varies = |position: &usize| operand(position).is_some_and(|tensor| values[tensor]);
        let by_value = match functions.shaped_by(node) {
            ShapedBy::Operands(positions) => positions.iter().any(operand_varies),
            ShapedBy::Branch => operand_varies(&0) && !branches_agree(node),
            ShapedBy::Anything => !branches_agree(node) && (any(&values) || reads.is_empty()),
        };
        let (shape_varies, value_varies) = if is_shape(node, &functions) {
            (false, any(&shapes))
        } else {
            // A node without readings that is not free is a random one.
            (by_value || any(&shapes), any(&values) || any(&shapes) || reads.is_empty())
        };
        for tensor in &links.writes[index] {
            shapes[*tensor] = shape_varies;
            values[*tensor] = value_varies;
        }
    }
    shapes
}

/// Whether it gives a shape: a value that comes from no value.
pub(super) fn is_shape(node: &NodeProto, functions: &Functions<'_>) -> bool {
    matches!((node.domain(), node.op_type()), ("" | "ai.onnx", "Shape" | "Size"))
        && functions.shaped_by(node) == ShapedBy::Operands(&[])
}

/// Whether all branches of an `If` declare the same fixed shapes.
fn branches_agree(node: &NodeProto) -> bool {
    if node.op_type() != "If" {
        return false;
    }
    let mut declared =
        super::scan::bodies(node).map(|body| body.output.iter().map(fixed_shape).collect::<Vec<_>>());
    let Some(first) = declared.next() else { return false };
    first.iter().all(Option::is_some) && declared.all(|other| other == first)
}

fn fixed_shape(info: &ValueInfoProto) -> Option<Vec<i64>> {
    let size = |value: &Option<Value>| match value {
        Some(Value::DimValue(size)) if *size >= 0 => Some(*size),
        _ => None,
    };
    let declared = info.type_.as_ref()?;
    if !declared.has_tensor_type() {
        return None;
    }
    declared.tensor_type().shape.as_ref()?.dim.iter().map(|dim| size(&dim.value)).collect()
}
