//! Deployments: what was asked for, and how it went.

use serde::{Deserialize, Serialize};
use stormo_protocol::ids::{DeploymentId, NodeId, ObjectId};

use super::{HealthView, as_text};

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
    /// How far it is, of all that its steward ordered.
    pub state: DeploymentState,
    /// What to know, or to do.
    pub message: Option<String>,
    /// How well nodes that are there serve it; only in `/v1/deployments`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// Who hosts what, as its steward ordered.
    pub hosts: Vec<HostView>,
    /// Nodes that are wished to host each block.
    #[serde(default)]
    pub replicas: u16,
    /// The version that requests go to: an earlier one while this one is not ready.
    #[serde(default)]
    pub serving: u64,
    /// Who looks after it, as the answering node sees it.
    #[serde(default)]
    pub steward: Option<StewardView>,
    /// Which of the orders for this version counts; none while it was not placed.
    #[serde(default)]
    pub sequence: Option<u64>,
}

/// A deployment's steward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StewardView {
    /// The node.
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// Its label.
    pub label: String,
    /// Why it and no other.
    pub why: String,
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
    /// Also where another node published the name, if that node is gone: the name is this one's from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_over: bool,
}
