//! The demo's JSON document. Units are in the names.

use serde::Serialize;
use stormo::card::Detection;
use stormo::serve::json::{DeploymentView, NodeView, PlanView};
use stormo_testnet::memory::Memory;
use stormo_testnet::oip::Difference;

/// All that was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The mesh, as the origin knew it.
    pub(crate) nodes: Vec<NodeView>,
    /// Memory of each node before anything was deployed.
    pub(crate) memory: Vec<NodeMemory>,
    /// Who hosts what.
    pub(crate) deployment: DeploymentView,
    /// Plan chosen freely.
    pub(crate) free: Free,
    /// Plan of several stages, asked for by its id.
    pub(crate) divided: Divided,
    /// The same, entered at another peer.
    pub(crate) elsewhere: Elsewhere,
    /// Bytes of one divided request.
    pub(crate) traffic: Vec<Hop>,
    /// What another network found in a picture.
    pub(crate) detected: Detected,
}

/// Memory of a node.
#[derive(Debug, Serialize)]
pub(crate) struct NodeMemory {
    /// Label.
    pub(crate) node: String,
    /// Its memory.
    #[serde(flatten)]
    pub(crate) memory: Memory,
}

/// What the free choice led to.
#[derive(Debug, Serialize)]
pub(crate) struct Free {
    /// Plans run, and the images that each read.
    pub(crate) plans: Vec<PlanUse>,
    /// What was read.
    pub(crate) readings: Vec<Reading>,
    /// Share of the images read as what they are.
    pub(crate) accuracy: f64,
}

/// A plan that was chosen.
#[derive(Debug, Serialize)]
pub(crate) struct PlanUse {
    /// Its id.
    pub(crate) plan_id: String,
    /// Its kind; `null` when it was not among the plans listed.
    pub(crate) kind: Option<String>,
    /// Labels of those who ran it.
    pub(crate) nodes: Vec<String>,
    /// Images that it read.
    pub(crate) images: usize,
    /// Median time from arrival at the node to the result.
    pub(crate) latency_ms: f64,
}

/// What an image was read as.
#[derive(Debug, Serialize)]
pub(crate) struct Reading {
    /// File name.
    pub(crate) image: String,
    /// The digit that it is.
    pub(crate) truth: u8,
    /// The digit read.
    pub(crate) digit: u8,
    /// The network's confidence.
    pub(crate) probability: f32,
}

/// What the divided network did.
#[derive(Debug, Serialize)]
pub(crate) struct Divided {
    /// The plan, with what it predicted.
    pub(crate) plan: PlanView,
    /// Medians over all images.
    pub(crate) measured: Measured,
    /// To the undivided network's answers.
    pub(crate) difference: Difference,
}

/// Times of a plan as run.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// Requests behind each median.
    pub(crate) requests: usize,
    /// By stage.
    pub(crate) stages: Vec<StageTimes>,
    /// By edge, as in the plan: first byte to last.
    pub(crate) edges_ms: Vec<f64>,
    /// Latency.
    pub(crate) latency_ms: f64,
    /// Of it, what is in none of the above: the way itself, frames, planning.
    pub(crate) rest_ms: f64,
}

/// Times of a stage as run.
#[derive(Debug, Serialize)]
pub(crate) struct StageTimes {
    /// Index.
    pub(crate) id: u16,
    /// From the last byte of the input to the start of the run.
    pub(crate) wait_ms: f64,
    /// The run.
    pub(crate) run_ms: f64,
}

/// What another peer answered.
#[derive(Debug, Serialize)]
pub(crate) struct Elsewhere {
    /// Label of the peer.
    pub(crate) origin: String,
    /// Labels of those who ran the first request.
    pub(crate) nodes: Vec<String>,
    /// To the answers of the first origin.
    pub(crate) difference: Difference,
}

/// Bytes that one request sent from a node to another.
#[derive(Debug, Serialize)]
pub(crate) struct Hop {
    /// Label of the sender.
    pub(crate) from: String,
    /// Label of the receiver.
    pub(crate) to: String,
    /// Tensors, by plan.
    pub(crate) planned_bytes: u64,
    /// Frames, as the sender counted them, headers included.
    pub(crate) sent_bytes: u64,
}

/// What was found in a picture.
#[derive(Debug, Serialize)]
pub(crate) struct Detected {
    /// File name.
    pub(crate) picture: String,
    /// Digits that are there.
    pub(crate) digits: usize,
    /// Of them, those found as what they are.
    pub(crate) right: usize,
    /// What the undivided network found.
    pub(crate) found: Vec<Detection>,
    /// Other plans that were run.
    pub(crate) by: Vec<DetectedBy>,
    /// The picture with the boxes.
    pub(crate) drawn: String,
}

/// A plan that a picture went through.
#[derive(Debug, Serialize)]
pub(crate) struct DetectedBy {
    /// In words.
    pub(crate) how: &'static str,
    /// Its id.
    pub(crate) plan_id: String,
    /// Labels of those who ran it.
    pub(crate) nodes: Vec<String>,
    /// From arrival at the node to the result.
    pub(crate) latency_ms: f64,
}
