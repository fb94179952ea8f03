//! Models: their tensors, blocks, cuts, branches and variants.

use serde::{Deserialize, Serialize};
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::model::BlockKind;

/// A tensor's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorView {
    /// Name in the model.
    pub name: String,
    /// The Open Inference Protocol's name of the element type.
    pub datatype: String,
    /// Dimensions, for one item.
    pub shape: Vec<u64>,
    /// Whether the first one is so many times as long for several items.
    #[serde(default)]
    pub is_batched: bool,
    /// Whether all of them differ from request to request; `shape` is then an example.
    #[serde(default)]
    pub is_variable: bool,
}

/// What a codec makes of a cut, as measured where the model was divided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CodecView {
    /// Its name.
    pub codec: Codec,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Encoding on one core there.
    pub encode_ms: f64,
    /// Decoding on one core there.
    pub decode_ms: f64,
    /// Share of agreement that answers lose; `null` where it was not measured, and then plans do not use
    /// it.
    pub loss: Option<f64>,
}

/// A cut between blocks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CutView {
    /// Bytes that cross it.
    pub bytes: u64,
    /// Codecs that make them fewer.
    #[serde(default)]
    pub codecs: Vec<CodecView>,
    /// The tensors that cross it.
    pub tensors: Vec<String>,
}

/// A block: the finest piece of a divided model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockView {
    /// `decode`, `graph` or `read`: ends of the model by its card, or parts of its graph.
    pub kind: BlockKind,
    /// Its share of the whole model's time on the node that divided it.
    pub time_ms: f64,
    /// Floating-point operations, millions.
    pub mflop: f64,
    /// Weights that it reads.
    pub weights_bytes: u64,
    /// Largest sum of live activations while it runs.
    pub peak_activation_bytes: u64,
}

/// Blocks that can run beside the other branches of their region.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BranchView {
    /// From the first, up to and without the last.
    pub blocks: [u16; 2],
    /// Tensors that it reads of the cut before the region.
    pub reads: CutView,
    /// Tensors that it adds to the cut behind.
    pub makes: CutView,
}

/// A stretch of blocks between two cuts that falls into branches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegionView {
    /// Its branches, in the order of blocks.
    pub branches: Vec<BranchView>,
}

/// One of a model's variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantView {
    /// Label by which a request picks it.
    pub label: String,
    /// Share of its answers that are right, as its publisher says, or that are those of the first variant;
    /// `null` when there is no figure.
    pub accuracy: Option<f64>,
    /// Blocks that it is divided into.
    pub blocks: u16,
    /// Time of a whole run on the node that divided it.
    pub time_ms: f64,
    /// Its weights and its graph.
    pub bytes: u64,
    /// Of these, what none of the variants before has: equal weights are stored and sent once.
    pub own_bytes: u64,
}

/// A deployed model, by one of its variants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// Version of its deployment.
    pub version: u64,
    /// Label of the variant that is shown.
    pub variant: String,
    /// Whether each of its blocks is loaded on a node that is there.
    #[serde(default)]
    pub ready: bool,
    /// Its accuracy; `null` when there is no figure.
    #[serde(default)]
    pub accuracy: Option<f64>,
    /// All variants, in the order of their deployment.
    #[serde(default)]
    pub variants: Vec<VariantView>,
    /// ONNX Runtime's optimisation level.
    pub ort_level: String,
    /// What its card reads in its outputs: `classes`, `detections` or `raw`. `null` without a card; with one
    /// it takes encoded images.
    #[serde(default)]
    pub card: Option<String>,
    /// Bytes of weights.
    pub weights_bytes: u64,
    /// Time of all blocks in one go, where the model was profiled.
    #[serde(default)]
    pub time_ms: f64,
    /// Blocks in order of execution. A range takes more time than its blocks together: what it takes
    /// where a session begins and ends is not theirs.
    pub blocks: Vec<BlockView>,
    /// `cuts[i]` lies before block `i`.
    pub cuts: Vec<CutView>,
    /// Parallel regions.
    #[serde(default)]
    pub regions: Vec<RegionView>,
    /// Images that the codecs' losses were measured on; 0 if they were not.
    #[serde(default)]
    pub loss_samples: u16,
    /// Most items in one request, if the model keeps its first axis open; shapes are of one item.
    #[serde(default)]
    pub batch_items_max: Option<u64>,
    /// Inputs.
    pub inputs: Vec<TensorView>,
    /// Outputs.
    pub outputs: Vec<TensorView>,
}

/// Answer of `/v1/models`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelsView {
    /// All whose manifest is here.
    pub models: Vec<ModelView>,
}
