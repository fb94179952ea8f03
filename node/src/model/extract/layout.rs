//! A part's start in the layout in which ONNX Runtime computes convolutions.
//!
//! At its highest level it keeps channels in groups of 8 or 16 (its `NchwcTransformer`) from a convolution on for as long
//! as every operand has that layout. What a part is given has the common one. Convolutions enter the other by
//! themselves; an addition does not, so that behind a cut between residual blocks all additions up to the next change of
//! size take place in the common layout, each between two changes of it. Pooling over one element does enter it, and
//! changes no value but -inf, to the least float there is (a convolution reads both, and makes NaN of the one).

use std::collections::HashSet;

use protobuf::EnumOrUnknown;
use stormo_protocol::tensor::{DType, TensorSpec};

use super::super::messages::attribute_proto::AttributeType;
use super::super::messages::{AttributeProto, GraphProto, NodeProto};

/// The larger of the groups.
const CHANNELS_GROUP: u64 = 16;

/// Lets what additions of residual blocks read from these inputs enter the layout of convolutions first.
pub(super) fn enter(graph: &mut GraphProto, inputs: &[TensorSpec]) {
    let mut names: HashSet<String> = graph.node.iter().flat_map(|node| node.output.iter().cloned()).collect();
    names.extend(graph.input.iter().chain(&graph.value_info).map(|info| info.name().to_owned()));
    names.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
    let residuals = inputs.iter().filter(|spec| has_groups(spec) && is_residual(graph, &spec.name));
    let residuals: Vec<&TensorSpec> = residuals.collect();
    let mut pools = Vec::new();
    for spec in residuals {
        let entered = format!("{} in groups of channels", spec.name);
        if names.contains(&entered) {
            continue;
        }
        for read in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|read| **read == spec.name)
        {
            entered.clone_into(read);
        }
        pools.push(pool_of_one(&spec.name, entered));
    }
    graph.node.splice(0..0, pools);
}

fn has_groups(spec: &TensorSpec) -> bool {
    let channels = spec.shape.get(1).copied().unwrap_or(0);
    spec.dtype == DType::F32 && spec.shape.len() == 4 && channels > 0 && channels % CHANNELS_GROUP == 0
}

/// Whether it is added to what a convolution of this graph makes of it, as far as its readers show.
fn is_residual(graph: &GraphProto, name: &str) -> bool {
    let readers = || graph.node.iter().filter(|node| node.input.iter().any(|read| read == name));
    let is_made = |read: &String| graph.node.iter().any(|node| node.output.contains(read));
    let is_convolved = readers().any(|node| node.op_type() == "Conv" && node.input[0] == name);
    is_convolved
        && readers().any(|node| {
            matches!(node.op_type(), "Add" | "Sum")
                && node.input.iter().all(|read| read == name || is_made(read))
        })
}

fn pool_of_one(input: &str, output: String) -> NodeProto {
    let mut kernel = AttributeProto::new();
    kernel.set_name("kernel_shape".to_owned());
    kernel.type_ = Some(EnumOrUnknown::new(AttributeType::INTS));
    kernel.ints = vec![1, 1];
    let mut node = NodeProto::new();
    node.set_op_type("MaxPool".to_owned());
    node.input = vec![input.to_owned()];
    node.output = vec![output];
    node.attribute = vec![kernel];
    node
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Builder, node};
    use super::*;

    fn spec(name: &str, shape: &[u64]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype: DType::F32, shape: shape.to_vec() }
    }

    /// `x` -> Conv -> `c`, added to something.
    fn block(added: [&str; 2], others: Vec<NodeProto>) -> GraphProto {
        let model = Builder::new().input("x", &[1, 32, 4, 4]).input("z", &[1, 32, 4, 4]).weight("w", 4);
        let mut model = model.node("Conv", &["x", "w"], &["c"]);
        model.graph().node.extend(others);
        model.node("Add", &added, &["s"]).node("Relu", &["s"], &["y"]).output("y").graph().clone()
    }

    fn entered(mut graph: GraphProto, shape: &[u64]) -> Vec<String> {
        enter(&mut graph, &[spec("x", shape), spec("z", shape)]);
        let text =
            |node: &NodeProto| format!("{} {} > {}", node.op_type(), node.input.join(" "), node.output[0]);
        graph.node.iter().map(text).collect()
    }

    #[test]
    fn what_is_convolved_and_added_enters_first() {
        let x = "x in groups of channels";
        let there = entered(block(["c", "x"], vec![]), &[1, 32, 4, 4]);
        assert_eq!(there[0], format!("MaxPool x > {x}"));
        assert_eq!(there[1..3], [format!("Conv {x} w > c"), format!("Add c {x} > s")]);
        assert_eq!(there.len(), 4);
    }

    #[test]
    fn all_else_is_left_as_it_is() {
        let is_left = |graph: GraphProto, shape: &[u64]| entered(graph, shape)[0].starts_with("Conv x");
        // Channels that make no groups, or none.
        assert!(is_left(block(["c", "x"], vec![]), &[1, 24, 4, 4]));
        assert!(is_left(block(["c", "x"], vec![]), &[1, 32, 4]));
        // Added, but convolved nowhere; convolved, but not added; added to what comes from outside.
        assert!(is_left(block(["c", "z"], vec![]), &[1, 32, 4, 4]));
        assert!(is_left(block(["c", "c"], vec![]), &[1, 32, 4, 4]));
        assert!(is_left(block(["z", "x"], vec![]), &[1, 32, 4, 4]));
        // The name is taken.
        let taken = node("Relu", &["c"], &["x in groups of channels"]);
        assert!(is_left(block(["c", "x"], vec![taken]), &[1, 32, 4, 4]));
    }
}
