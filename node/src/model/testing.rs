//! Hand-built models for the tests of this room, and a run of a model on symbols: each tensor's value
//! is a hash of how it was computed, so that equal values mean equal computations.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use protobuf::Message;
use stormo_protocol::model::{Manifest, OrtLevel};
use stormo_protocol::tensor::{DType, TensorSpec};

use super::divide::{DivideOptions, Division, divide};
use super::extract::{Partition, extract};
use super::graph::{Graph, decode, named, tensor_type};
use super::links::{reads_of, stored_names};
use super::messages::attribute_proto::AttributeType;
use super::messages::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use super::skeleton::Skeleton;

/// A model under construction.
#[derive(Debug, Clone)]
pub(super) struct Builder {
    pub(super) model: ModelProto,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut model = ModelProto::new();
        model.set_ir_version(8);
        let mut opset = OperatorSetIdProto::new();
        opset.set_version(13);
        model.opset_import.push(opset);
        model.graph.mut_or_insert_default().set_name("test".into());
        Self { model }
    }

    pub(super) fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.mut_or_insert_default()
    }

    pub(super) fn input(mut self, name: &str, dims: &[u64]) -> Self {
        let mut info = named(name);
        info.type_ = protobuf::MessageField::some(tensor_type(DType::F32, Some(dims)));
        self.graph().input.push(info);
        self
    }

    pub(super) fn output(mut self, name: &str) -> Self {
        self.graph().output.push(named(name));
        self
    }

    pub(super) fn weight(mut self, name: &str, elements: usize) -> Self {
        self.graph().initializer.push(weight(name, elements));
        self
    }

    pub(super) fn node(mut self, op_type: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.graph().node.push(node(op_type, inputs, outputs));
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.model.write_to_bytes().expect("small")
    }

    pub(super) fn parse(&self) -> Graph {
        Graph::parse(&self.bytes()).expect("sound")
    }
}

pub(super) fn weight(name: &str, elements: usize) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.set_name(name.to_owned());
    tensor.set_data_type(DType::F32 as i32);
    tensor.dims = vec![elements as i64];
    tensor.float_data = vec![elements as f32; elements];
    tensor
}

pub(super) fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut node = NodeProto { input: owned(inputs), output: owned(outputs), ..NodeProto::default() };
    node.set_op_type(op_type.to_owned());
    node
}

/// A `Constant` node that holds this many numbers.
pub(super) fn constant(name: &str, elements: usize) -> NodeProto {
    let mut attribute = AttributeProto::new();
    attribute.set_name("value".into());
    attribute.set_type(AttributeType::TENSOR);
    attribute.t = protobuf::MessageField::some(weight("", elements));
    let mut node = node("Constant", &[], &[name]);
    node.attribute.push(attribute);
    node
}

/// A node with a subgraph of one node.
pub(super) fn with_body(mut outer: NodeProto, inner: NodeProto) -> NodeProto {
    let mut attribute = AttributeProto::new();
    attribute.set_name("then_branch".into());
    attribute.set_type(AttributeType::GRAPH);
    let output: Vec<ValueInfoProto> = inner.output.iter().map(|name| named(name)).collect();
    let body = GraphProto { node: vec![inner], output, ..GraphProto::default() };
    attribute.g = protobuf::MessageField::some(body);
    outer.attribute.push(attribute);
    outer
}

/// `x` -> Relu -> ... -> `t{length}`.
pub(super) fn chain(length: usize) -> Builder {
    let name = |index: usize| if index == 0 { "x".to_owned() } else { format!("t{index}") };
    (0..length)
        .fold(Builder::new().input("x", &[1, 4]), |model, index| {
            model.node("Relu", &[&name(index)], &[&name(index + 1)])
        })
        .output(&name(length))
}

/// Sizes of everything: `bytes_of` each tensor, in steps of 4.
pub(super) fn sizes(graph: &Graph, bytes_of: impl Fn(&str) -> u64) -> HashMap<String, TensorSpec> {
    let names = &graph.links.names;
    let spec =
        |name: &String| TensorSpec { name: name.clone(), dtype: DType::F32, shape: vec![bytes_of(name) / 4] };
    names.iter().map(|name| (name.clone(), spec(name))).collect()
}

/// A division with all that is needed to extract from it.
pub(super) struct Divided {
    pub(super) division: Division,
    pub(super) manifest: Manifest,
    pub(super) skeleton: Skeleton,
}

impl Divided {
    pub(super) fn new(graph: &Graph, bytes_of: impl Fn(&str) -> u64, blocks_max: usize) -> Self {
        Self::with(graph, bytes_of, DivideOptions { blocks_max, ..DivideOptions::default() })
    }

    pub(super) fn with(graph: &Graph, bytes_of: impl Fn(&str) -> u64, options: DivideOptions) -> Self {
        let division = divide(graph, &sizes(graph, bytes_of), &options).expect("divisible");
        let manifest = division.manifest("m", "v", OrtLevel::Off);
        assert_eq!(manifest.check(), Ok(()));
        let skeleton = Skeleton::parse(&division.skeleton, &manifest).expect("own skeleton");
        Self { division, manifest, skeleton }
    }

    pub(super) fn part(&self, first: u16, end: u16) -> Partition {
        extract(&self.skeleton, &self.manifest, first..end).expect("own range")
    }

    /// Names of the tensors of a cut.
    pub(super) fn cut(&self, cut: u16) -> Vec<&str> {
        self.manifest.cut_specs(cut).map(|spec| spec.name.as_str()).collect()
    }
}

/// Runs a model on symbols: adds what each node makes to `values`.
///
/// # Panics
/// When a node reads what is not there.
pub(super) fn run_on_symbols(model: &[u8], values: &mut HashMap<String, u64>) {
    let model = decode(model).expect("a model");
    let mut all: HashMap<&str, u64> = stored_names(&model.graph).map(|name| (name, hash(&name))).collect();
    for info in &model.graph.input {
        all.insert(info.name(), values[info.name()]);
    }
    for node in &model.graph.node {
        let reads: Vec<u64> = reads_of(node).into_iter().map(|name| all[name]).collect();
        for (index, output) in node.output.iter().enumerate() {
            all.insert(output, hash(&(node.op_type(), node.attribute.len(), index, &reads)));
        }
    }
    for info in &model.graph.output {
        values.insert(info.name().to_owned(), all[info.name()]);
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Runs the parts between these bounds one after the other, only the tensors of each cut travelling; gives
/// what each part sends to the origin.
///
/// # Panics
/// When an output leaves twice.
pub(super) fn run_chain(
    divided: &Divided,
    bounds: &[u16],
    inputs: &HashMap<String, u64>,
) -> HashMap<String, u64> {
    let manifest = &divided.manifest;
    let mut values = inputs.clone();
    let mut results = HashMap::new();
    for (first, end) in bounds.iter().zip(&bounds[1..]) {
        let cut = divided.cut(*first);
        values.retain(|name, _| cut.contains(&name.as_str()));
        run_on_symbols(&divided.part(*first, *end).model, &mut values);
        for tensor in manifest.results_of(&(*first..*end), &(0..manifest.block_count())) {
            let name = &manifest.tensors[tensor as usize].name;
            assert_eq!(results.insert(name.clone(), values[name]), None, "{name} leaves twice");
        }
    }
    results
}
