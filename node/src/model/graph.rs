//! A model as it came: parsed, checked, and brought into the one form that the divider works on. Also
//! the probe, which tells the sizes of all tensors in one run.

use std::collections::HashSet;

use protobuf::{CodedInputStream, Message};
use stormo_protocol::limits::{FRAME_TENSORS_MAX, GRAPH_NODES_MAX};
use stormo_protocol::tensor::DType;

use super::constants;
use super::data;
use super::envelope;
use super::error::{ModelError, SUBGRAPH_DEPTH_MAX};
use super::links::{Links, stored_names};
use super::messages::tensor_shape_proto::dimension::Value;
use super::messages::type_proto;
use super::messages::{GraphProto, ModelProto, TypeProto, ValueInfoProto};
use super::quantised::separate_readers;
use super::scan::{References, scan};

/// The first IR version in which an initialiser need not be listed among the inputs.
const IR_VERSION_MIN: i64 = 4;
/// Largest initialiser that stays inside the skeleton, bytes; larger ones are objects of the pool, stored
/// and sent once for all variants. At the design's 64 KiB a second variant of digits with 10.4 % of the
/// weights its own cost 23 % of the first, at 16 KiB 12.7 %, so 11.9 %.
pub(super) const INLINE_BYTES_MAX: u64 = 4 << 10;
/// Results of these are no tensors, so a probe cannot ask for them.
const MAKES_NO_TENSOR: [&str; 8] = [
    "Optional",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceMap",
    "SplitToSequence",
    "ZipMap",
];

/// An input as the model declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputDecl {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; `None` where any size is allowed. `None` as a whole when the model
    /// does not even say how many there are.
    pub dims: Option<Vec<Option<u64>>>,
}

impl InputDecl {
    /// Whether a tensor of this shape may be given.
    pub fn accepts(&self, shape: &[u64]) -> bool {
        self.dims.as_ref().is_none_or(|dims| {
            dims.len() == shape.len()
                && dims.iter().zip(shape).all(|(dim, size)| dim.is_none_or(|dim| dim == *size))
        })
    }
}

/// A model that gives out what it computes on the way.
#[derive(Debug, Clone)]
pub struct ProbeModel {
    /// The model, serialised. The added outputs are declared by name only.
    pub model: Vec<u8>,
    /// Every output: the model's own, then each tensor that some node reads.
    pub outputs: Vec<String>,
}

/// A parsed and checked model.
#[derive(Debug)]
pub struct Graph {
    pub(super) model: ModelProto,
    pub(super) links: Links,
    inputs: Vec<InputDecl>,
    outputs: Vec<String>,
}

impl Graph {
    /// Parses and pre-scans a model that may come from anywhere.
    ///
    /// What changes: initialisers leave the graph's inputs (they are constants here, as in IR 4 and
    /// later), as do large constants; nodes that no output depends on are dropped; each reader of a
    /// dequantised tensor gets its own; nodes are put in topological order.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        let mut model = decode(bytes)?;
        let nodes = scan(&model, References::Refused)?;
        // Training graphs play no part in inference and may be as large as the model.
        model.training_info.clear();
        let stored: HashSet<String> = stored_names(&model.graph).map(str::to_owned).collect();
        let graph = model.graph.mut_or_insert_default();
        let is_input =
            |output: &ValueInfoProto| graph.input.iter().any(|input| input.name() == output.name());
        if graph.node.is_empty() && !graph.output.iter().all(is_input) {
            return Err(ModelError::EmptyGraph);
        }
        lift_constants(graph);
        graph.input.retain(|info| !stored.contains(info.name()));
        model.set_ir_version(model.ir_version().max(IR_VERSION_MIN));
        let inputs = declarations(&model.graph.input)?;
        let outputs: Vec<String> = model.graph.output.iter().map(|info| info.name().to_owned()).collect();
        for (what, count, none) in [
            ("inputs", inputs.len(), ModelError::NoInputs),
            ("outputs", outputs.len(), ModelError::NoOutputs),
        ] {
            match count {
                0 => return Err(none),
                1..=FRAME_TENSORS_MAX => {}
                _ => return Err(ModelError::TooManyTensors { what, count }),
            }
        }
        let links = Links::of(&model.graph, &model.functions)?;
        let graph = model.graph.mut_or_insert_default();
        separate_readers(graph, &links, GRAPH_NODES_MAX - nodes);
        let links = Links::of(&model.graph, &model.functions)?;
        tidy(&mut model, &links);
        let links = Links::of(&model.graph, &model.functions)?;
        constants::check(&model.graph, &links)?;
        Ok(Self { model, links, inputs, outputs })
    }

    /// The inputs to be given, in the model's order. Initialisers do not appear.
    pub fn inputs(&self) -> &[InputDecl] {
        &self.inputs
    }

    /// Names of the outputs, in the model's order.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Number of nodes, subgraphs not counted.
    pub fn node_count(&self) -> usize {
        self.model.graph.node.len()
    }

    /// The whole model as it is divided, weights inside: what a division must agree with.
    ///
    /// # Errors
    /// When it no longer fits one protobuf file.
    pub fn whole_model(&self) -> Result<Vec<u8>, ModelError> {
        encode(&self.model)
    }

    /// The model with every tensor that may cross a cut as a further output, so that one run on the
    /// sample input tells element type and shape of each. Results that are no dense tensors of a
    /// known element type are to be left out of the sizes; no cut goes through them.
    ///
    /// # Errors
    /// When it no longer fits one protobuf file.
    pub fn probe_model(&self) -> Result<ProbeModel, ModelError> {
        let links = &self.links;
        let mut outputs = self.outputs.clone();
        let known: HashSet<usize> = links.outputs.iter().copied().collect();
        let read: HashSet<usize> = links.reads.iter().flatten().copied().collect();
        for (node, writes) in links.writes.iter().enumerate() {
            if links.free[node] || MAKES_NO_TENSOR.contains(&self.model.graph.node[node].op_type()) {
                continue;
            }
            let asked = writes.iter().filter(|tensor| read.contains(tensor) && !known.contains(tensor));
            outputs.extend(asked.map(|tensor| links.names[*tensor].clone()));
        }
        let mut model = self.model.clone();
        let declared = &mut model.graph.mut_or_insert_default().output;
        declared.extend(outputs[declared.len()..].iter().map(|name| named(name)));
        Ok(ProbeModel { model: encode(&model)?, outputs })
    }
}

/// A tensor declared by its name alone.
pub(super) fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}

/// Decodes a model, its nesting bounded.
///
/// # Errors
/// When the bytes are no whole model, or nest too deep.
pub(super) fn decode(bytes: &[u8]) -> Result<ModelProto, ModelError> {
    envelope::check(bytes)?;
    if i32::try_from(bytes.len()).is_err() {
        return Err(ModelError::TooLarge { bytes: bytes.len() });
    }
    let mut stream = CodedInputStream::from_bytes(bytes);
    // Graph, node and attribute for each level of subgraphs, and some for what lies at the bottom.
    stream.set_recursion_limit(3 * SUBGRAPH_DEPTH_MAX as u32 + 16);
    let mut model = ModelProto::new();
    let merged = model.merge_from(&mut stream).and_then(|()| stream.check_eof());
    merged.map_err(|error| {
        let detail = error.to_string();
        if detail.contains("recursion limit") { ModelError::TooDeep } else { ModelError::Damaged { detail } }
    })?;
    Ok(model)
}

/// Serialises a model.
///
/// # Errors
/// When it is above 2 GiB, the only thing that protobuf refuses here.
pub(super) fn encode(model: &ModelProto) -> Result<Vec<u8>, ModelError> {
    let too_large = |bytes| ModelError::TooLarge { bytes };
    let bytes = model.compute_size();
    if bytes > i32::MAX as u64 {
        return Err(too_large(usize::try_from(bytes).unwrap_or(usize::MAX)));
    }
    model.write_to_bytes().map_err(|_| too_large(bytes as usize))
}

fn declarations(infos: &[ValueInfoProto]) -> Result<Vec<InputDecl>, ModelError> {
    infos.iter().map(declaration).collect()
}

fn declaration(info: &ValueInfoProto) -> Result<InputDecl, ModelError> {
    let unsupported =
        |what: &str| ModelError::UnsupportedInput { input: info.name().to_owned(), what: what.to_owned() };
    if info.name().is_empty() {
        return Err(unsupported("nameless"));
    }
    let Some(type_proto::Value::TensorType(tensor)) =
        info.type_.as_ref().and_then(|r#type| r#type.value.as_ref())
    else {
        return Err(unsupported("a sequence, map, optional or sparse value"));
    };
    let dtype = data::dtype_of(tensor.elem_type())
        .ok_or_else(|| unsupported(&format!("of element type {}", tensor.elem_type())))?;
    let dims = tensor.shape.as_ref().map(|shape| {
        let size = |value: &Option<Value>| match value {
            Some(Value::DimValue(size)) => u64::try_from(*size).ok(),
            _ => None,
        };
        shape.dim.iter().map(|dim| size(&dim.value)).collect()
    });
    Ok(InputDecl { name: info.name().to_owned(), dtype, dims })
}

/// A declared tensor type.
pub(super) fn tensor_type(dtype: DType, shape: Option<&[u64]>) -> TypeProto {
    let mut tensor = type_proto::Tensor::new();
    tensor.set_elem_type(dtype as i32);
    if let Some(shape) = shape {
        let dims = &mut tensor.shape.mut_or_insert_default().dim;
        for size in shape {
            let mut dim = super::messages::tensor_shape_proto::Dimension::new();
            dim.set_dim_value(i64::try_from(*size).unwrap_or(i64::MAX));
            dims.push(dim);
        }
    }
    let mut declared = TypeProto::new();
    declared.set_tensor_type(tensor);
    declared
}

/// Turns large `Constant` nodes into initialisers of the same name, which is what they mean: some
/// exporters store all weights that way, and only initialisers become objects of the pool.
fn lift_constants(graph: &mut GraphProto) {
    let mut lifted = Vec::new();
    graph.node.retain_mut(|node| {
        let is_constant = node.op_type() == "Constant" && matches!(node.domain(), "" | "ai.onnx");
        let value = node.attribute.iter_mut().find(|attribute| attribute.name() == "value");
        let (true, [name], Some(value)) = (is_constant, node.output.as_slice(), value) else { return true };
        let large = value.t.as_ref().is_some_and(|t| data::stored_bytes(t) > INLINE_BYTES_MAX);
        if name.is_empty() || !large {
            return true;
        }
        let mut tensor = std::mem::take(value.t.mut_or_insert_default());
        tensor.set_name(name.clone());
        lifted.push(tensor);
        false
    });
    graph.initializer.append(&mut lifted);
}

/// Drops what no output depends on, and sorts the nodes.
pub(super) fn tidy(model: &mut ModelProto, links: &Links) {
    let needed = links.needed_by(&links.outputs);
    let mut read: HashSet<&str> = links.outputs.iter().map(|tensor| links.names[*tensor].as_str()).collect();
    for node in (0..needed.len()).filter(|node| needed[*node]) {
        read.extend(links.reads[node].iter().map(|tensor| links.names[*tensor].as_str()));
    }
    let graph = model.graph.mut_or_insert_default();
    let mut nodes: Vec<_> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    let order = links.order.iter().filter(|node| needed[**node]);
    graph.node = order.filter_map(|node| nodes[*node].take()).collect();
    graph.initializer.retain(|tensor| read.contains(tensor.name()));
    graph.sparse_initializer.retain(|sparse| read.contains(sparse.values.name()));
}

#[cfg(test)]
mod tests;
