//! Gives each reader of a dequantised tensor its own `DequantizeLinear`. ONNX Runtime does the same
//! before it fuses; done ahead, a cut can pass between two readers with the small integers crossing.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::links::{Links, reads_of};
use super::messages::GraphProto;
use super::scan::bodies;

/// Copies `DequantizeLinear` nodes so that none is read by two nodes. Free ones are left alone: parts
/// have their own copies of those anyway. `room` is how many nodes may be added.
pub(super) fn separate_readers(graph: &mut GraphProto, links: &Links, room: usize) {
    let mut copied: HashMap<&str, usize> = HashMap::new();
    // The first reader keeps the name, and so do the graph's outputs and what subgraphs capture.
    let mut kept: HashSet<&str> = links.outputs.iter().map(|tensor| links.names[*tensor].as_str()).collect();
    let mut taken: HashSet<&str> = links.names.iter().map(String::as_str).collect();
    for (index, node) in graph.node.iter().enumerate() {
        if node.op_type() == "DequantizeLinear" && !links.free[index] {
            copied.extend(node.output.first().map(|name| (name.as_str(), index)));
        }
        kept.extend(reads_of(node).into_iter().filter(|name| !node.input.iter().any(|input| input == name)));
        taken.extend(
            bodies(node).flat_map(|body| &body.node).flat_map(|inner| &inner.output).map(String::as_str),
        );
    }
    let is_free = |name: &String| !taken.contains(name.as_str());
    let mut fresh = (0u32..).map(|number| format!("stormo/dequantised/{number}")).filter(is_free);
    let mut copies: Vec<(usize, usize, String)> = Vec::new();
    for (reader, node) in graph.node.iter().enumerate() {
        let inputs: BTreeSet<&str> = node.input.iter().map(String::as_str).collect();
        for (name, maker) in inputs.into_iter().filter_map(|name| Some((name, *copied.get(name)?))) {
            if !kept.insert(name) && copies.len() < room {
                copies.extend(fresh.next().map(|copy| (reader, maker, copy)));
            }
        }
    }
    for (reader, maker, copy) in copies {
        let mut node = graph.node[maker].clone();
        let name = std::mem::replace(&mut node.output[0], copy.clone());
        node.set_name(copy.clone());
        graph.node.push(node);
        for input in graph.node[reader].input.iter_mut().filter(|input| **input == name) {
            *input = copy.clone();
        }
    }
}
