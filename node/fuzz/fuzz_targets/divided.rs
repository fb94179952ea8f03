//! A model from any bytes, divided without being run: sizes are made up from the names.

use std::collections::HashMap;

use stormo_protocol::model::{Manifest, OrtLevel};
use stormo_protocol::tensor::{DType, TensorSpec};

use crate::model::{DivideOptions, Division, Graph, divide};

/// Larger graphs only make runs slower.
const NODES_MAX: usize = 300;

pub(crate) fn divided(bytes: &[u8]) -> Option<(Division, Manifest)> {
    let mut graph = Graph::parse(bytes).ok().filter(|graph| graph.node_count() <= NODES_MAX)?;
    let probe = graph.probe_model().expect("small");
    let size = |name: &String| {
        let elements = name.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte)) % 5000;
        let spec = TensorSpec { name: name.clone(), dtype: DType::F32, shape: vec![elements] };
        (name.clone(), spec)
    };
    let names = probe.outputs.iter().chain(graph.inputs().iter().map(|input| &input.name));
    let sizes: HashMap<String, TensorSpec> = names.map(size).collect();
    graph.fix_shapes(&sizes).expect("a graph that was parsed");
    let options = DivideOptions { blocks_max: 1 + bytes.len() % 64, keeps_outputs: bytes.len() % 2 == 0 };
    let division = divide(&graph, &sizes, &options).ok()?;
    let manifest = division.manifest("m", "v", OrtLevel::Off);
    manifest.check().expect("a sound manifest");
    Some((division, manifest))
}
