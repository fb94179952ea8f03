//! Tensors whose shape depends on the values of the input, not only on its shape: what the sample run
//! measured of them does not hold for the next input, so no cut may go through them.

use super::links::Links;
use super::messages::tensor_shape_proto::dimension::Value;
use super::messages::{GraphProto, NodeProto, ValueInfoProto};

/// How many results these make depends on what they find (ONNX operator documentation).
const COUNTS_WHAT_IT_FINDS: [&str; 7] =
    ["Compress", "Loop", "NonMaxSuppression", "NonZero", "StringSplit", "Tokenizer", "Unique"];

/// Positions of the inputs whose values decide the shape of the output (ONNX operator documentation).
fn shape_operands(op_type: &str) -> &'static [usize] {
    match op_type {
        "ConstantOfShape" => &[0],
        "Range" => &[0, 1, 2],
        "Resize" => &[1, 2, 3],
        "Slice" => &[1, 2, 3, 4],
        "CenterCropPad" | "Expand" | "OneHot" | "Pad" | "Reshape" | "Split" | "Squeeze" | "Tile" | "TopK"
        | "Unsqueeze" | "Upsample" => &[1],
        op_type if op_type.starts_with("Reduce") => &[1],
        _ => &[],
    }
}

/// For each tensor, whether its shape may change while the input keeps its shape.
pub(super) fn varying_shapes(graph: &GraphProto, links: &Links) -> Vec<bool> {
    let mut shapes = vec![false; links.names.len()];
    let mut values = shapes.clone();
    links.inputs.iter().for_each(|input| values[*input] = true);
    for index in links.order.iter().copied().filter(|index| !links.free[*index]) {
        let node = &graph.node[index];
        let reads = &links.reads[index];
        let any = |flags: &[bool]| reads.iter().any(|tensor| flags[*tensor]);
        let operand = |position: &usize| node.input.get(*position).and_then(|name| links.find(name));
        let operand_varies = |position: &usize| operand(position).is_some_and(|tensor| values[tensor]);
        // A shape is a value that comes from no value.
        let (shape_varies, value_varies) = if matches!(node.op_type(), "Shape" | "Size") {
            (false, any(&shapes))
        } else {
            let by_operand = shape_operands(node.op_type()).iter().any(operand_varies);
            let by_branch = node.op_type() == "If" && operand_varies(&0) && !branches_agree(node);
            let found = COUNTS_WHAT_IT_FINDS.contains(&node.op_type()) || leaves_words_out(node);
            // A node without readings that is not free is a random one.
            (
                found || by_branch || by_operand || any(&shapes),
                any(&values) || any(&shapes) || reads.is_empty(),
            )
        };
        for tensor in &links.writes[index] {
            shapes[*tensor] = shape_varies;
            values[*tensor] = value_varies;
        }
    }
    shapes
}

/// Whether it gives only those of its texts that are not among the words it is told to leave out.
fn leaves_words_out(node: &NodeProto) -> bool {
    let stopwords = node.attribute.iter().find(|attribute| attribute.name() == "stopwords");
    node.op_type() == "StringNormalizer" && stopwords.is_some_and(|words| !words.strings.is_empty())
}

/// Whether all branches of an `If` declare the same fixed shapes.
fn branches_agree(node: &NodeProto) -> bool {
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
