//! From a graph and the measured sizes to the dag that is ordered and cut: computing nodes, the
//! tensors between them, and where no cut may go.

use std::collections::HashMap;

use stormo_protocol::profile::WorkClass;
use stormo_protocol::tensor::TensorSpec;

use super::dag::{Crossing, Dag, Edge};
use super::flops::Shapes;
use super::graph::Graph;
use super::varying::varying_shapes;

/// Time of writing one element, in the time of floating-point operations. A guess, not measured: it
/// only spreads the cuts. Without it depthwise layers look free, and they are not.
const FLOPS_PER_ELEMENT: u64 = 16;
/// Time of calling a node, likewise a guess. Without it the many small nodes of a transformer look free.
const FLOPS_PER_NODE: u64 = 50_000;
/// Sizes above this are counted as this, so that sums of 100,000 of them stay within 64 bits.
const EDGE_BYTES_MAX: u64 = 1 << 44;

/// The computing part of a graph.
pub(super) struct Computing {
    pub dag: Dag,
    /// Node of the dag -> node of the graph.
    pub nodes: Vec<usize>,
    /// Edge of the dag -> tensor of the graph.
    pub tensors: Vec<usize>,
    /// Node of the dag -> floating-point operations.
    pub flops: Vec<u64>,
    /// Node of the dag -> its work, and of which class that is.
    pub work: Vec<(WorkClass, u64)>,
}

impl Computing {
    /// `keeps_outputs` if the model's outputs stay alive to the end.
    pub(super) fn of(graph: &Graph, sizes: &HashMap<String, TensorSpec>, keeps_outputs: bool) -> Self {
        let links = &graph.links;
        let nodes: Vec<usize> = links.order.iter().copied().filter(|node| !links.free[*node]).collect();
        let made = nodes.iter().flat_map(|node| &links.writes[*node]);
        let tensors: Vec<usize> = links.inputs.iter().chain(made).copied().collect();
        let edge_of: HashMap<usize, usize> =
            tensors.iter().enumerate().map(|(edge, tensor)| (*tensor, edge)).collect();
        let mut node_of = vec![None; graph.node_count()];
        nodes.iter().enumerate().for_each(|(node, of)| node_of[*of] = Some(node));

        let shapes = Shapes::new(&graph.model.graph, links, sizes);
        let protos = &graph.model.graph.node;
        let flops: Vec<u64> = nodes.iter().map(|node| shapes.flops(&protos[*node])).collect();
        let work = nodes.iter().map(|node| shapes.work(&protos[*node])).collect();
        let mut dag = Dag { edges: edges(graph, sizes, &tensors, keeps_outputs), ..Dag::default() };
        dag.inputs = (0..links.inputs.len()).collect();
        dag.after = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            let edges =
                |list: &[usize]| list.iter().filter_map(|tensor| edge_of.get(tensor).copied()).collect();
            let reads: Vec<usize> = edges(&links.reads[*node]);
            let makers = reads.iter().filter_map(|edge| node_of[links.maker[tensors[*edge]]?]);
            let mut before: Vec<usize> = makers.collect();
            before.sort_unstable();
            before.dedup();
            before.iter().for_each(|maker| dag.after[*maker].push(index));
            reads.iter().for_each(|edge| dag.edges[*edge].readers += 1);
            dag.before.push(before);
            dag.reads.push(reads);
            dag.writes.push(edges(&links.writes[*node]));
            let elements =
                protos[*node].output.iter().map(|name| shapes.elements(name)).fold(0, u64::saturating_add);
            let writing = elements.saturating_mul(FLOPS_PER_ELEMENT);
            dag.work.push(flops[index].saturating_add(writing).saturating_add(FLOPS_PER_NODE));
        }
        Self { dag, nodes, tensors, flops, work }
    }
}

/// The edges, their readers not yet counted.
fn edges(
    graph: &Graph,
    sizes: &HashMap<String, TensorSpec>,
    tensors: &[usize],
    keeps_outputs: bool,
) -> Vec<Edge> {
    let links = &graph.links;
    let protos = &graph.model.graph.node;
    let varying = varying_shapes(&graph.model.graph, &graph.model.functions, links);
    let made_by = |tensor: usize, op_type: &str| {
        links.maker[tensor].is_some_and(|node| protos[node].op_type() == op_type)
    };
    // With quantised and dequantised tensors in it, a graph runs as integers only where ONNX Runtime
    // sees both ends; a cut elsewhere would move its results by up to half of the largest value.
    let is_quantised = ["QuantizeLinear", "DequantizeLinear"]
        .iter()
        .all(|op_type| tensors.iter().any(|tensor| made_by(*tensor, op_type)));
    let edge = |tensor: &usize| {
        let bytes = sizes.get(&links.names[*tensor]).and_then(|spec| spec.byte_length().ok());
        let crossing = if bytes.is_none() || varying[*tensor] {
            Crossing::Never
        } else if !is_quantised || links.maker[*tensor].is_none() || made_by(*tensor, "QuantizeLinear") {
            Crossing::Allowed
        } else {
            Crossing::AsResult
        };
        let bytes = bytes.unwrap_or(0).min(EDGE_BYTES_MAX);
        Edge { bytes, readers: 0, is_kept: keeps_outputs && links.outputs.contains(tensor), crossing }
    };
    tensors.iter().map(edge).collect()
}
