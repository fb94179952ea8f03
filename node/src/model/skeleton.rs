//! The skeleton: a graph in the divider's order whose large weights are references into the pool. How
//! it is written, and how a host reads it back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use protobuf::MessageField;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{Manifest, ObjectRef};

use super::branches;
use super::constants;
use super::data;
use super::error::ModelError;
use super::graph::{Graph, INLINE_BYTES_MAX, decode, encode};
use super::links::Links;
use super::messages::tensor_proto::DataLocation;
use super::messages::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use super::scan::{References, scan};

/// The key under which ONNX keeps the place of external data: here the name of an object.
const LOCATION: &str = "location";

/// A skeleton as written, and what was taken out of it.
pub(super) struct Written {
    pub skeleton: Vec<u8>,
    /// Each distinct weight once.
    pub weights: Vec<(ObjectRef, Vec<u8>)>,
    /// Name of an initialiser -> its index in `weights`.
    pub weight_of: HashMap<String, u32>,
}

/// Writes the skeleton with the nodes in this order.
///
/// # Errors
/// When it is above 2 GiB.
pub(super) fn write(graph: &Graph, order: &[usize]) -> Result<Written, ModelError> {
    let mut written = Written { skeleton: Vec::new(), weights: Vec::new(), weight_of: HashMap::new() };
    let mut index_of = HashMap::new();
    let initializer = graph.model.graph.initializer.iter();
    let initializer = initializer.map(|tensor| take_weight(tensor, &mut written, &mut index_of)).collect();
    let nodes = order.iter().map(|index| graph.model.graph.node[*index].clone()).collect();
    let mut model = without_graph(&graph.model);
    model.graph = MessageField::some(with_contents(&graph.model.graph, nodes, initializer));
    written.skeleton = encode(&model)?;
    Ok(written)
}

/// A copy of a model without its graph. Every field is named, so that a new one cannot be forgotten.
fn without_graph(model: &ModelProto) -> ModelProto {
    ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        domain: model.domain.clone(),
        model_version: model.model_version,
        doc_string: model.doc_string.clone(),
        graph: MessageField::none(),
        metadata_props: model.metadata_props.clone(),
        training_info: Vec::new(),
        functions: model.functions.clone(),
        configuration: model.configuration.clone(),
        special_fields: model.special_fields.clone(),
    }
}

/// A copy of a graph with other nodes and initialisers.
fn with_contents(
    graph: &GraphProto,
    node: Vec<super::messages::NodeProto>,
    initializer: Vec<TensorProto>,
) -> GraphProto {
    GraphProto {
        node,
        name: graph.name.clone(),
        initializer,
        sparse_initializer: graph.sparse_initializer.clone(),
        doc_string: graph.doc_string.clone(),
        input: graph.input.clone(),
        output: graph.output.clone(),
        value_info: graph.value_info.clone(),
        quantization_annotation: graph.quantization_annotation.clone(),
        metadata_props: graph.metadata_props.clone(),
        special_fields: graph.special_fields.clone(),
    }
}

/// The tensor for the skeleton: as it is, or as a reference to an object that is put aside.
fn take_weight(
    tensor: &TensorProto,
    written: &mut Written,
    index_of: &mut HashMap<ObjectId, u32>,
) -> TensorProto {
    let spec =
        data::spec_of(tensor).filter(|spec| spec.byte_length().is_ok_and(|bytes| bytes > INLINE_BYTES_MAX));
    let Some(spec) = spec else { return tensor.clone() };
    let bytes = data::raw_bytes(tensor, spec.dtype);
    let object = ObjectRef { id: ObjectId::of(&bytes), bytes: bytes.len() as u64 };
    let index = match index_of.entry(object.id) {
        Entry::Occupied(entry) => *entry.get(),
        Entry::Vacant(entry) => {
            let index = written.weights.len() as u32;
            written.weights.push((object, bytes));
            *entry.insert(index)
        }
    };
    written.weight_of.insert(spec.name, index);
    reference(tensor, object)
}

/// What stands in a skeleton for a weight.
fn reference(tensor: &TensorProto, object: ObjectRef) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
        ..StringStringEntryProto::default()
    };
    TensorProto {
        dims: tensor.dims.clone(),
        data_type: tensor.data_type,
        name: tensor.name.clone(),
        doc_string: tensor.doc_string.clone(),
        external_data: vec![
            entry(LOCATION, object.id.to_string()),
            entry("offset", "0".to_owned()),
            entry("length", object.bytes.to_string()),
        ],
        data_location: Some(DataLocation::EXTERNAL.into()),
        metadata_props: tensor.metadata_props.clone(),
        special_fields: tensor.special_fields.clone(),
        ..TensorProto::default()
    }
}

/// The object that an initialiser refers to, if it does.
pub(super) fn object_of(tensor: &TensorProto) -> Option<ObjectId> {
    let location = tensor.external_data.iter().find(|entry| entry.key() == LOCATION)?;
    location.value().parse().ok()
}

/// A skeleton read back, so that many ranges can be extracted from it.
#[derive(Debug)]
pub struct Skeleton {
    /// Everything but the graph.
    pub(super) model: ModelProto,
    pub(super) graph: GraphProto,
    pub(super) links: Links,
    /// Name of a stored tensor -> its index among the initialisers.
    pub(super) initializers: HashMap<String, usize>,
}

impl Skeleton {
    /// Parses and checks a skeleton that came from a peer.
    ///
    /// # Errors
    /// What [`Graph::parse`] finds, and where skeleton and manifest disagree.
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, ModelError> {
        let mut model = decode(bytes)?;
        scan(&model, References::OfInitialisers)?;
        let graph = model.graph.take().unwrap_or_default();
        let mismatch = |what: String| ModelError::Mismatch { what };
        let known: HashMap<ObjectId, u64> =
            manifest.weights.iter().map(|weight| (weight.id, weight.bytes)).collect();
        for tensor in graph.initializer.iter().filter(|tensor| data::is_external(tensor)) {
            let expected = data::spec_of(tensor).and_then(|spec| spec.byte_length().ok());
            let object = object_of(tensor);
            let listed = object.and_then(|id| known.get(&id).copied());
            let written = object.zip(listed).map(|(id, bytes)| reference(tensor, ObjectRef { id, bytes }));
            if expected.is_none() || expected != listed {
                return Err(mismatch(format!("the weight `{}` is no object of the manifest", tensor.name())));
            }
            // ONNX Runtime reads it from a file: nothing but the object's name, and all of it.
            if written.as_ref() != Some(tensor) {
                return Err(mismatch(format!(
                    "the weight `{}` is referred to in another way",
                    tensor.name()
                )));
            }
        }
        let links = Links::of(&graph, &model.functions)?;
        let nodes = manifest.blocks.last().map_or(0, |block| block.end_node as usize);
        if nodes != graph.node.len() {
            return Err(mismatch(format!("{} nodes instead of {nodes}", graph.node.len())));
        }
        if !links.order.is_sorted() {
            return Err(mismatch("the nodes are not in the order of execution".to_owned()));
        }
        branches::check(&links, manifest)?;
        constants::check(&graph, &links)?;
        let names = graph.initializer.iter().map(|tensor| tensor.name().to_owned());
        let initializers = names.enumerate().map(|(index, name)| (name, index)).collect();
        Ok(Self { model, graph, links, initializers })
    }
}
