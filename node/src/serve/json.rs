//! The JSON of the mesh API under `/v1`, shared by the server, the commands and the test mesh.
//! Units are in the names. Fields are only ever added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{DeploymentId, NodeId, ObjectId, PlanId};
use stormo_protocol::model::BlockKind;
use stormo_protocol::state::Class;

/// Ids appear as text.
pub mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    /// Writes an id.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Display, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When the text is no such id.
    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>
    where
        T::Err: Display,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// What every failed call answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorView {
    /// What went wrong and what to do.
    pub error: String,
}

/// A range of blocks that a node has loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostedView {
    /// Name of the model; `(removed)` when its deployment is not known here, or not any more.
    pub model: String,
    /// Version of the deployment; 0 while it is not known here.
    pub version: u64,
    /// Label of the variant; empty while it is not known here.
    #[serde(default)]
    pub variant: String,
    /// First block and one past the last.
    pub blocks: [u16; 2],
    /// Time of one run, measured there: half of the last ones were faster.
    pub time_ms: f64,
    /// Nineteen in twenty of them were faster than this.
    #[serde(default)]
    pub p95_ms: f64,
    /// Time that a new input would wait.
    pub queue_wait_ms: f64,
}

/// A link as one of its ends measured it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkView {
    /// The other end.
    #[serde(with = "as_text")]
    pub peer: NodeId,
    /// Round trip.
    pub round_trip_ms: f64,
    /// Rate of large transfers; `null` while unknown.
    pub bytes_per_second: Option<u64>,
}

/// Bytes of tensors exchanged with a peer since the node started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrafficView {
    /// The peer.
    #[serde(with = "as_text")]
    pub peer: NodeId,
    /// Sent to it.
    pub sent_bytes: u64,
    /// Received from it.
    pub received_bytes: u64,
}

/// A node as another one knows it (`/v1/nodes`), or as it knows itself (`/v1/node`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeView {
    /// Peer id.
    #[serde(with = "as_text")]
    pub id: NodeId,
    /// The owner's name for it.
    pub label: String,
    /// Kind of machine.
    pub class: Class,
    /// Whether it is the node that answers.
    pub is_self: bool,
    /// Whether plans may use it: heard of lately, and not leaving.
    pub usable: bool,
    /// Whether it said that it is going away.
    #[serde(default)]
    pub leaving: bool,
    /// Since its record was last heard of.
    pub age_ms: u64,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Cores it may use.
    pub cores: u16,
    /// Speed of one core on a convolution, MFLOP/s.
    pub mflops: f64,
    /// Speed of one core at each class of work, millions of operations (of bytes, for `memory`) a second.
    #[serde(default)]
    pub speeds: BTreeMap<String, f64>,
    /// Time to load a partition, by its last loads.
    #[serde(default)]
    pub cold_ms: f64,
    /// Time beyond that for each megabyte of weights.
    #[serde(default)]
    pub cold_ms_per_mb: f64,
    /// Memory that partitions may take.
    pub memory_budget_bytes: u64,
    /// Memory that they take.
    pub memory_used_bytes: u64,
    /// Share of its cores in use, 0 to 1.
    pub utilisation: f64,
    /// What it has loaded.
    pub hosted: Vec<HostedView>,
    /// What it is loading; only in `/v1/node`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loading: Vec<HostingView>,
    /// What it measured on the way to others.
    pub links: Vec<LinkView>,
    /// Bytes by peer; only in `/v1/node`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficView>,
    /// Version of stormo; only in `/v1/node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of ONNX Runtime; only in `/v1/node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<String>,
    /// Mesh id; only in `/v1/node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
}

/// Answer of `/v1/nodes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodesView {
    /// All that are known, the answering node included.
    pub nodes: Vec<NodeView>,
}

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

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentState {
    /// Hosts are loading.
    Loading,
    /// What was wished is loaded.
    Ready,
    /// It cannot be done; `message` says why.
    Failed,
}

/// A node and the blocks it hosts, or should.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostView {
    /// The node.
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// Its label.
    pub label: String,
    /// Label of the variant whose blocks they are.
    #[serde(default)]
    pub variant: String,
    /// First block and one past the last.
    pub blocks: [u16; 2],
    /// How far it is.
    pub state: DeploymentState,
    /// Time of one run as measured there, once loaded.
    pub time_ms: Option<f64>,
    /// Why it failed.
    pub message: Option<String>,
    /// How far its objects are; only of the answering node itself, while it loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loading: Option<LoadingView>,
}

/// How far the objects of a partition are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadingView {
    /// Bytes that are here.
    pub bytes_done: u64,
    /// Bytes that are needed; 0 while that is not known.
    pub bytes_total: u64,
}

/// A range of blocks that a node is loading.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostingView {
    /// Name of the model; empty while its deployment is not known here.
    pub model: String,
    /// Label of the variant; likewise.
    #[serde(default)]
    pub variant: String,
    /// First block and one past the last.
    pub blocks: [u16; 2],
    /// How far its objects are.
    #[serde(flatten)]
    pub loading: LoadingView,
}

/// A deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Name of the model.
    pub name: String,
    /// Version.
    pub version: u64,
    /// Id of this version.
    #[serde(with = "as_text")]
    pub id: DeploymentId,
    /// Who published it.
    #[serde(with = "as_text")]
    pub publisher: NodeId,
    /// How far it is; a node that did not place it sees it ready when its blocks are all hosted.
    pub state: DeploymentState,
    /// What to know, or to do.
    pub message: Option<String>,
    /// Who hosts what.
    pub hosts: Vec<HostView>,
}

/// Answer of `/v1/deployments`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentsView {
    /// All that are known.
    pub deployments: Vec<DeploymentView>,
}

/// One line of a placement: these blocks on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementEntry {
    /// Peer id or label.
    pub node: String,
    /// Label of the variant; every variant if absent.
    #[serde(default)]
    pub variant: Option<String>,
    /// First block and one past the last.
    pub blocks: [u16; 2],
}

/// A variant to deploy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VariantBody {
    /// Its label, which its manifest has too.
    pub label: String,
    /// The encoded manifest in the pool.
    #[serde(with = "as_text")]
    pub manifest: ObjectId,
    /// Share of its answers that are right, 0 to 1.
    #[serde(default)]
    pub accuracy: Option<f64>,
}

/// Body of `POST /v1/deployments`. All objects of the manifests were uploaded before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployBody {
    /// Name of the model.
    pub name: String,
    /// Its variants; the first is what the others are compared with.
    pub variants: Vec<VariantBody>,
    /// Nodes that host each block.
    pub replicas: u16,
    /// Divide into this many parts of equal time, on as many nodes.
    #[serde(default)]
    pub parts: Option<u16>,
    /// Or exactly this.
    #[serde(default)]
    pub placement: Vec<PlacementEntry>,
}

/// Where an input of a stage comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageInputView {
    /// The stage before; `null`: the origin.
    pub stage: Option<u16>,
    /// Part of the tensors; `null`: all.
    pub slice: Option<[u64; 2]>,
    /// How they are coded on the way.
    pub codec: Codec,
}

/// A stage of a plan, with its predicted times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageView {
    /// Index.
    pub id: u16,
    /// Host.
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// Its label.
    pub label: String,
    /// First block and one past the last.
    pub blocks: [u16; 2],
    /// Branch of a parallel region; `null` in a chain.
    pub branch: Option<u16>,
    /// Inputs.
    pub inputs: Vec<StageInputView>,
    /// Redundant successors.
    pub backups: Vec<String>,
    /// Predicted wait in the queue.
    pub wait_ms: f64,
    /// Predicted loading time; 0 when loaded.
    pub cold_ms: f64,
    /// Predicted time of the run.
    pub compute_ms: f64,
}

/// Tensors from a stage to the next, with the predicted time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeView {
    /// Stage; `null`: the origin.
    pub from: Option<u16>,
    /// Stage; `null`: the origin.
    pub to: Option<u16>,
    /// Bytes that travel, as coded; 0 within one node.
    pub bytes: u64,
    /// How they are coded.
    pub codec: Codec,
    /// Share of agreement that answers lose by that.
    pub loss: f64,
    /// Predicted time, coding included.
    pub transfer_ms: f64,
}

/// A plan that can be run by its id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanView {
    /// Id, valid as long as the deployment's version.
    #[serde(with = "as_text")]
    pub id: PlanId,
    /// `local`, `remote` (all on another node), or `chain-K`: K stages on more than one node.
    pub kind: String,
    /// Label of the variant.
    pub variant: String,
    /// Stages in order.
    pub stages: Vec<StageView>,
    /// Edges in order: input, between stages, result.
    pub edges: Vec<EdgeView>,
    /// How the result is coded on its way home.
    pub result_codec: Codec,
    /// Predicted latency, loading included.
    pub latency_ms: f64,
    /// Predicted time between results of a full pipeline: the busiest node or link.
    pub period_ms: f64,
    /// Energy of the origin; `null` until it is modelled.
    pub energy_j: Option<f64>,
    /// Accuracy of the variant less what its codecs lose; `null` when the variant has no figure.
    pub accuracy: Option<f64>,
    /// Share of agreement that its codecs lose together.
    pub loss: f64,
    /// Bytes over the network.
    pub bytes: u64,
    /// Of the latency, loading of parts that are not loaded yet.
    pub cold_ms: f64,
}

/// Answer of `/v1/plans`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlansView {
    /// Name of the model.
    pub model: String,
    /// Version of its deployment.
    pub version: u64,
    /// Best first.
    pub plans: Vec<PlanView>,
}

/// How long a stage took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageTraceView {
    /// Index.
    pub id: u16,
    /// Host.
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// First block and one past the last.
    pub blocks: [u16; 2],
    /// From the first byte of its input to the last.
    pub receive_ms: f64,
    /// Decoding it.
    pub decode_ms: f64,
    /// From there to the start of the run, loading included.
    pub wait_ms: f64,
    /// The run.
    pub run_ms: f64,
    /// Encoding its output.
    pub encode_ms: f64,
}

/// Answer of `/v1/requests/{id}`: one of the last requests that entered here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestView {
    /// Request id.
    pub id: String,
    /// Name of the model.
    pub model: String,
    /// The plan of the attempt that answered.
    #[serde(with = "as_text")]
    pub plan_id: PlanId,
    /// Attempts made.
    pub attempts: u16,
    /// From the request's arrival at the node to its result there.
    pub latency_ms: f64,
    /// Encoding the input.
    pub input_encode_ms: f64,
    /// From the last stage's first result byte to its last.
    pub result_receive_ms: f64,
    /// Decoding it.
    pub result_decode_ms: f64,
    /// Stages in order.
    pub stages: Vec<StageTraceView>,
}
