//! What can be wrong with a model or with a division of it, each with what to do.

use stormo_protocol::ids::ObjectId;
use stormo_protocol::limits::{FRAME_TENSORS_MAX, GRAPH_NODES_MAX, OBJECT_BYTES_MAX, TENSOR_NAME_BYTES_MAX};

/// Deepest nesting of subgraphs (`If`, `Loop`, `Scan` bodies). A test walks 60 levels
/// in an unoptimised build on a thread of 2 MiB, protobuf's own recursion included.
pub(super) const SUBGRAPH_DEPTH_MAX: usize = 64;

/// Why a model cannot be used, or a part of it not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The bytes do not begin like an ONNX file.
    #[error("this is no ONNX model: give the path of an `.onnx` file")]
    NotOnnx,
    /// It begins like a model and ends too early.
    #[error("the model is cut off after {bytes} bytes: copy or download the file again")]
    Truncated {
        /// Bytes that are there.
        bytes: usize,
    },
    /// It begins like a model; inside something does not decode.
    #[error("the model is damaged ({detail}): copy the file again, or export the model again")]
    Damaged {
        /// What the decoder met.
        detail: String,
    },
    /// Beyond what one protobuf file may hold.
    #[error("a model file of {bytes} bytes is above protobuf's limit of 2 GiB")]
    TooLarge {
        /// Length of the file.
        bytes: usize,
    },
    /// Subgraphs inside subgraphs beyond the bound.
    #[error("subgraphs are nested deeper than {SUBGRAPH_DEPTH_MAX}: simplify the model")]
    TooDeep,
    /// More nodes than a graph may have, subgraphs included.
    #[error(
        "{nodes} nodes, functions written out, are above the limit of {GRAPH_NODES_MAX}: simplify the model"
    )]
    TooManyNodes {
        /// Nodes found.
        nodes: usize,
    },
    /// Nothing would end the writing out.
    #[error("the function `{name}` calls itself, by way of others or not: ONNX has no recursion")]
    RecursiveFunction {
        /// Its name, shortened.
        name: String,
    },
    /// Names are bounded, since they travel with every frame.
    #[error("the tensor name `{start}...` is longer than {TENSOR_NAME_BYTES_MAX} bytes: rename it")]
    LongName {
        /// The first characters of it.
        start: String,
    },
    /// The opset says what the operators mean.
    #[error("the model does not say which opset of `{domain}` it uses: export it again with an opset import")]
    NoOpset {
        /// Domain of the operators concerned.
        domain: String,
    },
    /// ONNX Runtime has no such operators, and the model brings no function for it.
    #[error(
        "node `{node}` needs operators of `{domain}`, which no node of the mesh has: export without custom operators"
    )]
    UnknownDomain {
        /// The node.
        node: String,
        /// Its domain.
        domain: String,
    },
    /// A path inside a model could name any file of the host, so none is followed.
    #[error("the model keeps `{tensor}` in a separate file: read what lies beside it with --external-data")]
    ExternalData {
        /// The tensor whose data is elsewhere.
        tensor: String,
    },
    /// Data in a separate file that was to be read.
    #[error("the data of `{tensor}` cannot be read from `{location}` beside the model: {what}")]
    BadExternal {
        /// The tensor.
        tensor: String,
        /// The file, as the model names it.
        location: String,
        /// What is wrong about it.
        what: String,
    },
    /// A constant that would fill a machine's memory.
    #[error(
        "the constant `{tensor}` takes {bytes} bytes, above the limit of {OBJECT_BYTES_MAX}: make it smaller"
    )]
    HugeConstant {
        /// Its name.
        tensor: String,
        /// Bytes in memory.
        bytes: u64,
    },
    /// No node at all.
    #[error("the model has no nodes: there is nothing to run")]
    EmptyGraph,
    /// Nothing can be sent in.
    #[error("the model takes no input: there is nothing to infer from")]
    NoInputs,
    /// Nothing comes out.
    #[error("the model declares no output")]
    NoOutputs,
    /// Frames hold a bounded number of tensors.
    #[error("the model has {count} {what}, the limit is {FRAME_TENSORS_MAX}")]
    TooManyTensors {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// An input that is no dense tensor of a known element type.
    #[error("input `{input}` is {what}: only dense tensors of numbers or booleans can be sent")]
    UnsupportedInput {
        /// Name of the input.
        input: String,
        /// What it is instead.
        what: String,
    },
    /// The dimensions of stored data make no sense.
    #[error(
        "the stored tensor `{tensor}` has an impossible shape or element type ({what}): export the model again"
    )]
    BadStored {
        /// Name of the tensor, or of the node that holds it.
        tensor: String,
        /// What is impossible.
        what: String,
    },
    /// Shape and data of a stored tensor disagree.
    #[error(
        "the stored tensor `{tensor}` holds {got} where its shape asks for {expected}: export the model again"
    )]
    StoredLength {
        /// Name of the tensor, or of the node that holds it.
        tensor: String,
        /// Bytes or elements that the shape asks for.
        expected: u64,
        /// Bytes or elements that are there.
        got: u64,
    },
    /// A tensor comes from nowhere.
    #[error("`{reader}` reads `{tensor}`, which nothing in the model makes: export the model again")]
    NobodyMakes {
        /// Node, or `the model's outputs`.
        reader: String,
        /// The missing tensor.
        tensor: String,
    },
    /// One name for two values.
    #[error("`{tensor}` is made or listed twice: names of tensors must be unique")]
    MadeTwice {
        /// The name.
        tensor: String,
    },
    /// A node needs its own result.
    #[error("the graph goes in a circle through node `{node}`: export the model again")]
    Cycle {
        /// A node on the circle.
        node: String,
    },
    /// The probe run did not tell what an input or output is.
    #[error("element type and shape of `{tensor}` are unknown: run the probe model on a sample input first")]
    SizeUnknown {
        /// The input or output.
        tensor: String,
    },
    /// The range lies outside the division.
    #[error("blocks {first}..{end} are no range of a division into {blocks} blocks")]
    BadRange {
        /// First block asked for.
        first: u16,
        /// One past the last.
        end: u16,
        /// Blocks that there are.
        blocks: usize,
    },
    /// Skeleton and manifest do not describe the same division.
    #[error("skeleton and manifest do not fit together ({what}): deploy the model again")]
    Mismatch {
        /// What does not fit.
        what: String,
    },
    /// A weight that a self-contained model needs was not given.
    #[error("the weight {object} is not there: fetch it from a node that has it")]
    WeightMissing {
        /// Name of the object.
        object: ObjectId,
    },
}
