//! Nodes, what they host, and the links between them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stormo_protocol::ids::NodeId;
use stormo_protocol::state::Class;

use super::{HostingView, as_text};

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

/// Where a node is in the space of round trips: two nodes are as far from each other as their points in the plane, and both
/// heights beside that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CoordinateView {
    /// The point in the plane, ms.
    pub plane_ms: [f64; 2],
    /// The height above it, ms.
    pub height_ms: f64,
    /// How far off it foretold lately, as a share of what was measured.
    pub error: f64,
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

/// How a node is, as far as the one that answers knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It is there.
    Usable,
    /// Silent in a request and to a question, or not heard of for some seconds: left out of plans until it speaks again.
    Suspected,
    /// It said that it is going away.
    Leaving,
    /// The connection to it broke, and it has not spoken since.
    Lost,
}

/// What the owner of a node lets others have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// It runs parts of models for others.
    pub computes: bool,
    /// It gives objects to others.
    pub stores: bool,
    /// This is within the hours in which it works for others.
    pub open: bool,
}

impl Default for OfferView {
    fn default() -> Self {
        Self { computes: true, stores: true, open: true }
    }
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
    /// How it is.
    pub state: NodeState,
    /// Whether plans may use it now: `state` is `usable`, and no request met silence there a moment ago.
    pub usable: bool,
    /// Whether it said that it is going away.
    #[serde(default)]
    pub leaving: bool,
    /// Since its record was last heard of.
    pub age_ms: u64,
    /// Times that it was started: the first half of the record's stamp.
    #[serde(default)]
    pub generation: u64,
    /// Records since that start: the second half.
    #[serde(default)]
    pub sequence: u64,
    /// What others may have of it.
    #[serde(default)]
    pub offer: OfferView,
    /// Failure domains that it is in, such as `site:home`.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Requests a minute that enter there, by model.
    #[serde(default)]
    pub asked_per_minute: BTreeMap<String, u32>,
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
    /// Where it is in the space of round trips, once it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinate: Option<CoordinateView>,
    /// Round trip from the answering node, measured or by both coordinates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
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
