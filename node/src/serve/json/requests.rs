//! Plans, and how requests went.

use serde::{Deserialize, Serialize};
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::ids::{NodeId, PlanId};

use super::as_text;

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
    /// Who can take it over at once, the first to be tried first.
    pub backups: Vec<String>,
    /// Predicted: when its input is there, from the request on.
    #[serde(default)]
    pub start_ms: f64,
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
    /// Predicted: when its sender begins, from the request on.
    #[serde(default)]
    pub start_ms: f64,
    /// Of the time, encoding.
    #[serde(default)]
    pub encode_ms: f64,
    /// Of the time, bytes on the link, its latency apart.
    #[serde(default)]
    pub wire_ms: f64,
    /// Of the time, decoding.
    #[serde(default)]
    pub decode_ms: f64,
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
    /// What the machine of the origin draws for it; `null` where its owner did not say what it draws (`--power`).
    pub energy_j: Option<f64>,
    /// Accuracy of the variant less what its codecs lose; `null` when the variant has no figure.
    pub accuracy: Option<f64>,
    /// Share of agreement that its codecs lose together.
    pub loss: f64,
    /// Bytes over the network.
    pub bytes: u64,
    /// Of the latency, loading of parts that are not loaded yet.
    pub cold_ms: f64,
    /// Whether each stage names who can take it over at once: losing any one host does not cost the request.
    #[serde(default)]
    pub redundant: bool,
    /// Limits that it does not keep to, of those asked with.
    #[serde(default)]
    pub exceeds: Vec<String>,
}

/// A stage of a plan with a fork, with its predicted times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SplitStageView {
    /// Host.
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// Its label.
    pub label: String,
    /// First block and one past the last.
    pub blocks: [u16; 2],
    /// Which branch of the region, in the order of blocks; `null` before and behind it.
    pub branch: Option<u16>,
    /// From the request until it begins.
    pub start_ms: f64,
    /// Waiting for its turn, loading and running.
    pub takes_ms: f64,
}

/// A plan with the branches of a parallel region beside each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SplitView {
    /// By which it can be asked for.
    #[serde(with = "as_text")]
    pub id: PlanId,
    /// `split-merge`.
    pub kind: String,
    /// Label of the variant.
    pub variant: String,
    /// Stages up to the region, its branches in the order in which they are sent their inputs, stages behind it.
    pub stages: Vec<SplitStageView>,
    /// Predicted latency, loading included.
    pub latency_ms: f64,
    /// Bytes over the network.
    pub bytes: u64,
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
    /// With `all`: plans with a fork, the best of each variant that has any.
    #[serde(default)]
    pub forked: Vec<SplitView>,
    /// No plan within the limits has less of what is to be least (ms, or mJ for energy), as far as that was
    /// looked for; `null` where it was not.
    #[serde(default)]
    pub lower_bound: Option<f64>,
    /// Time that the planner took.
    #[serde(default)]
    pub planning_ms: f64,
}

/// Answer of `/v1/requests`: how requests go that enter at this node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RequestsView {
    /// Not answered yet.
    pub under_way: usize,
    /// Answered since the node started.
    pub answered: u64,
    /// Failed since the node started.
    pub failed: u64,
    /// Requests since the node started whose plan was ready.
    #[serde(default)]
    pub plans_looked_up: u64,
    /// Requests since then that had to be planned for.
    #[serde(default)]
    pub plans_made: u64,
    /// Inputs and outputs since then that this node sent to a second host, since the first took long.
    #[serde(default)]
    pub hedged: u64,
    /// The figures below are of this time before now; shorter where there were too many requests.
    pub window_ms: u64,
    /// Answered requests a second.
    pub answered_per_s: f64,
    /// Failed requests a second.
    pub failed_per_s: f64,
    /// Half of the answers took less; `null` without any.
    pub p50_ms: Option<f64>,
    /// 99 of 100 took less.
    pub p99_ms: Option<f64>,
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
    /// What the machine of this node drew for it, J, by the times below and the watts that its owner said (`--power`);
    /// `null` where that was not said.
    #[serde(default)]
    pub energy_j: Option<f64>,
    /// The same as the plan foretold it, J.
    #[serde(default)]
    pub predicted_energy_j: Option<f64>,
    /// Of the latency, until there was a plan: one was looked up, or made.
    #[serde(default)]
    pub planning_ms: f64,
    /// Encoding the input.
    pub input_encode_ms: f64,
    /// From the last stage's first result byte to its last.
    pub result_receive_ms: f64,
    /// Decoding it.
    pub result_decode_ms: f64,
    /// Stages in order.
    pub stages: Vec<StageTraceView>,
}
