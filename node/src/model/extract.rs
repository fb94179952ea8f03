//! A range of blocks as an ONNX model of its own: its nodes, the constants that they rest on, and
//! declared inputs and outputs.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use protobuf::MessageField;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::{Manifest, ObjectRef, OrtLevel};
use stormo_protocol::tensor::TensorSpec;

use super::data;
use super::error::ModelError;
use super::graph::{decode, encode, tensor_type};
use super::links::Constants;
use super::messages::{GraphProto, TensorProto, ValueInfoProto};
use super::skeleton::{Skeleton, object_of};

mod layout;

/// What the open axis is called in a part.
const BATCH_AXIS: &str = "batch";

/// A weight that ONNX Runtime is given in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionWeight {
    /// Name of the initialiser.
    pub name: String,
    /// Element type and shape of it, under the same name.
    pub spec: TensorSpec,
    /// The object that holds its raw bytes. Two initialisers may share one.
    pub object: ObjectRef,
}

/// A part of a model that runs as one session.
#[derive(Debug, Clone)]
pub struct Partition {
    /// The model, serialised; the weights below are external references in it whose location is the
    /// object's name.
    pub model: Vec<u8>,
    /// Initialisers that are not in the model.
    pub weights: Vec<PartitionWeight>,
    /// What it reads, all from the cut before it, in the order of the model's inputs.
    pub inputs: Vec<TensorSpec>,
    /// What it makes of what is there at the cut behind it, settled outputs of the model included. What else
    /// is there was there at the cut before and passes by.
    pub outputs: Vec<TensorSpec>,
    /// Of both, those whose first axis follows the batch; as described they are of one item.
    pub batched: Vec<String>,
    /// Of the outputs, those whose dimensions depend on values; as described they are those of a sample.
    pub variable: Vec<String>,
}

/// Extracts a range of blocks. The manifest must have passed its own check.
///
/// # Errors
/// When there is no such range, or skeleton and manifest do not fit together.
pub fn extract(
    skeleton: &Skeleton,
    manifest: &Manifest,
    blocks: Range<u16>,
) -> Result<Partition, ModelError> {
    let range = usize::from(blocks.start)..usize::from(blocks.end);
    let is_last = blocks.end == manifest.graph_blocks().end;
    let found = manifest.blocks.get(range.clone()).filter(|blocks| !blocks.is_empty());
    let (Some([first, .., last] | [first @ last]), Some(cut_before), Some(cut_behind)) =
        (found, manifest.cuts.get(range.start), manifest.cuts.get(range.end))
    else {
        let blocks_in_all = manifest.blocks.len();
        return Err(ModelError::BadRange { first: blocks.start, end: blocks.end, blocks: blocks_in_all });
    };
    let links = &skeleton.links;
    let nodes: Vec<usize> = (first.first_node as usize..last.end_node as usize)
        .filter(|node| links.free.get(*node) == Some(&false))
        .collect();
    let made: HashSet<usize> = nodes.iter().flat_map(|node| &links.writes[*node]).copied().collect();
    let read = nodes.iter().flat_map(|node| &links.reads[*node]).copied();
    let read: HashSet<usize> =
        read.filter(|tensor| !made.contains(tensor) && !links.constant[*tensor]).collect();

    let specs = |indices: &[u32], keep: &dyn Fn(usize) -> bool| -> Result<Vec<TensorSpec>, ModelError> {
        let specs = indices.iter().map(|index| manifest.tensors.get(*index as usize));
        let specs = specs.map(|spec| spec.ok_or_else(|| mismatch("a cut lists an unknown tensor")));
        let specs: Vec<&TensorSpec> = specs.collect::<Result<_, _>>()?;
        Ok(specs.into_iter().filter(|spec| links.find(&spec.name).is_some_and(keep)).cloned().collect())
    };
    let inputs = specs(&cut_before.tensors, &|tensor| read.contains(&tensor))?;
    if inputs.len() != read.len() {
        return Err(mismatch("nodes read what does not cross the cut before them"));
    }
    let is_result = |tensor: usize| made.contains(&tensor) || (is_last && links.constant[tensor]);
    let there: Vec<u32> = cut_behind.there().collect();
    let outputs = specs(&there, &is_result)?;
    // A part without nodes passes on what it is given.
    if outputs.is_empty() && !nodes.is_empty() {
        return Err(mismatch("blocks without a result"));
    }
    let constant_results =
        outputs.iter().filter_map(|spec| links.find(&spec.name)).filter(|tensor| links.constant[*tensor]);
    let constants = links.constants_of(nodes.iter().copied(), constant_results);
    let weights = weights(skeleton, &constants)?;
    let mut graph = graph(skeleton, &nodes, &constants, &inputs, &outputs);
    if manifest.ort_level == OrtLevel::All {
        layout::enter(&mut graph, &inputs);
    }
    let batched = |spec: &&TensorSpec| is_batched(manifest, &spec.name);
    for (info, spec) in graph.input.iter_mut().zip(&inputs).filter(|(_, spec)| batched(spec)) {
        open_first_axis(info, spec);
    }
    let batched = inputs.iter().chain(&outputs).filter(batched).map(|spec| spec.name.clone()).collect();
    let is_variable = |spec: &&TensorSpec| is_variable(manifest, &spec.name);
    let variable = outputs.iter().filter(is_variable).map(|spec| spec.name.clone()).collect();
    let mut model = skeleton.model.clone();
    model.graph = MessageField::some(graph);
    Ok(Partition { model: encode(&model)?, weights, inputs, outputs, batched, variable })
}

fn is_batched(manifest: &Manifest, name: &str) -> bool {
    let tensors = manifest.batch.iter().flat_map(|batch| &batch.tensors);
    tensors.filter_map(|tensor| manifest.tensors.get(*tensor as usize)).any(|spec| spec.name == name)
}

fn is_variable(manifest: &Manifest, name: &str) -> bool {
    let tensors = manifest.variable.iter().filter_map(|one| manifest.tensors.get(one.tensor as usize));
    tensors.into_iter().any(|spec| spec.name == name)
}

/// Lets an input have any number of items. Where one item is one row, all such inputs have the same.
fn open_first_axis(info: &mut ValueInfoProto, spec: &TensorSpec) {
    let tensor = info.type_.mut_or_insert_default().mut_tensor_type();
    if let Some(axis) = tensor.shape.mut_or_insert_default().dim.first_mut() {
        axis.value = None;
        if spec.shape.first() == Some(&1) {
            axis.set_dim_param(BATCH_AXIS.to_owned());
        }
    }
}

fn mismatch(what: &str) -> ModelError {
    ModelError::Mismatch { what: what.to_owned() }
}

/// The large weights among these constants.
fn weights(skeleton: &Skeleton, constants: &Constants) -> Result<Vec<PartitionWeight>, ModelError> {
    let names = constants.stored.iter().map(|tensor| &skeleton.links.names[*tensor]);
    let stored = names.filter_map(|name| skeleton.initializers.get(name));
    let external =
        stored.map(|index| &skeleton.graph.initializer[*index]).filter(|tensor| data::is_external(tensor));
    external.map(|tensor| reference(tensor).ok_or_else(|| mismatch("a weight refers to no object"))).collect()
}

fn reference(tensor: &TensorProto) -> Option<PartitionWeight> {
    let spec = data::spec_of(tensor)?;
    let object = ObjectRef { id: object_of(tensor)?, bytes: spec.byte_length().ok()? };
    Some(PartitionWeight { name: spec.name.clone(), spec, object })
}

/// The graph of a part.
fn graph(
    skeleton: &Skeleton,
    nodes: &[usize],
    constants: &Constants,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> GraphProto {
    let (whole, links) = (&skeleton.graph, &skeleton.links);
    let stored: HashSet<&str> = constants.stored.iter().map(|tensor| links.names[*tensor].as_str()).collect();
    let mut nodes: Vec<usize> = constants.nodes.iter().chain(nodes).copied().collect();
    nodes.sort_unstable();
    let inside: HashSet<&str> = nodes
        .iter()
        .flat_map(|node| links.reads[*node].iter().chain(&links.writes[*node]))
        .map(|tensor| links.names[*tensor].as_str())
        .collect();
    let ends: HashSet<&str> = inputs.iter().chain(outputs).map(|spec| spec.name.as_str()).collect();
    let declared = |spec: &TensorSpec, shape: Option<&[u64]>| ValueInfoProto {
        name: Some(spec.name.clone()),
        type_: MessageField::some(tensor_type(spec.dtype, shape)),
        ..ValueInfoProto::default()
    };
    GraphProto {
        node: nodes.iter().map(|node| whole.node[*node].clone()).collect(),
        name: whole.name.clone(),
        initializer: whole
            .initializer
            .iter()
            .filter(|tensor| stored.contains(tensor.name()))
            .cloned()
            .collect(),
        sparse_initializer: whole
            .sparse_initializer
            .iter()
            .filter(|sparse| stored.contains(sparse.values.name()))
            .cloned()
            .collect(),
        doc_string: whole.doc_string.clone(),
        input: inputs.iter().map(|spec| declared(spec, Some(&spec.shape))).collect(),
        // Shapes of results are left to inference: a declared one that disagrees would be an error.
        output: outputs.iter().map(|spec| declared(spec, None)).collect(),
        value_info: whole
            .value_info
            .iter()
            .filter(|info| inside.contains(info.name()) && !ends.contains(info.name()))
            .cloned()
            .collect(),
        quantization_annotation: whole
            .quantization_annotation
            .iter()
            .filter(|annotation| inside.contains(annotation.tensor_name()))
            .cloned()
            .collect(),
        metadata_props: whole.metadata_props.clone(),
        special_fields: whole.special_fields.clone(),
    }
}

impl Partition {
    /// The same part with its weights inside, for where they cannot be given in memory.
    ///
    /// # Errors
    /// When a weight is missing or has another length, or the model is then above 2 GiB.
    pub fn inlined<'a>(&self, weight: impl Fn(ObjectId) -> Option<&'a [u8]>) -> Result<Vec<u8>, ModelError> {
        let objects: HashMap<&str, ObjectRef> =
            self.weights.iter().map(|weight| (weight.name.as_str(), weight.object)).collect();
        let mut model = decode(&self.model)?;
        for tensor in &mut model.graph.mut_or_insert_default().initializer {
            let Some(object) = objects.get(tensor.name()) else { continue };
            let bytes = weight(object.id).ok_or(ModelError::WeightMissing { object: object.id })?;
            if bytes.len() as u64 != object.bytes {
                return Err(mismatch("a weight has another length than its shape asks for"));
            }
            tensor.external_data.clear();
            tensor.data_location = None;
            tensor.set_raw_data(bytes.to_vec());
        }
        encode(&model)
    }
}

#[cfg(test)]
mod tests;
