//! From what a node believes about the mesh to a planner's problem, and from its answer to a plan.

use std::collections::BTreeMap;

use stormo_protocol::ids::{DeploymentId, NodeId};
use stormo_protocol::model::Manifest;
use stormo_protocol::plan::{Plan, Stage};
use stormo_protocol::state::NodeRecord;

use crate::mesh::LinkQuality;
use crate::plan::{Link, Links, LoadedRange, Node, PlanShape, Problem};

/// What a run costs beyond its blocks: hand-over to the session's thread, signs, bookkeeping.
/// Measured as the difference between a pass through a tiny partition and its session's own time.
const RUN_OVERHEAD_MS: f64 = 0.05;
/// Making a session, whatever its size: a guess from loading SqueezeNet's parts (10 to 30 ms).
const COLD_FIXED_MS: f64 = 30.0;
/// Fetching, hashing and packing a range's weights: a guess of 100 MB/s.
const COLD_MS_PER_BYTE: f64 = 1e-5;

/// A candidate as the planner may use it: the newest record, and whether it takes work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub record: &'a NodeRecord,
    pub takes_work: bool,
}

/// A problem together with who its nodes are.
#[derive(Debug, Clone)]
pub(super) struct Posed {
    pub problem: Problem,
    pub nodes: Vec<NodeId>,
    pub deployment: DeploymentId,
}

/// What a planner is asked.
pub(super) struct Question<'a> {
    pub manifest: &'a Manifest,
    pub deployment: DeploymentId,
    /// This node first.
    pub candidates: Vec<Candidate<'a>>,
    pub force_first: bool,
    pub force_last: bool,
}

impl Question<'_> {
    pub(super) fn pose(&self) -> Posed {
        let manifest = self.manifest;
        let blocks = manifest.block_count();
        Posed {
            problem: Problem {
                cut_bytes: (0..=blocks).map(|cut| manifest.cut_bytes(cut)).collect(),
                block_weights_bytes: block_weights_bytes(manifest),
                block_peak_bytes: manifest.blocks.iter().map(|block| block.peak_activation_bytes).collect(),
                nodes: self.candidates.iter().map(|candidate| self.node(candidate)).collect(),
                links: self.links(),
                force_first: self.force_first,
                force_last: self.force_last,
            },
            nodes: self.candidates.iter().map(|candidate| candidate.record.node).collect(),
            deployment: self.deployment,
        }
    }

    fn node(&self, candidate: &Candidate<'_>) -> Node {
        let record = candidate.record;
        let speed_factor = self.manifest.reference_mflops / record.machine.mflops;
        let mut loaded: BTreeMap<(u16, u16), LoadedRange> = BTreeMap::new();
        let mut queue_wait_us = 0;
        for hosted in &record.hosted {
            queue_wait_us = queue_wait_us.max(hosted.queue_wait_us);
            let fits = hosted.first < hosted.end && hosted.end <= self.manifest.block_count();
            if hosted.deployment == self.deployment && fits {
                let range = LoadedRange {
                    first: hosted.first,
                    end: hosted.end,
                    time_ms: Some(RUN_OVERHEAD_MS + micros_to_ms(hosted.time_us)),
                };
                loaded.insert((hosted.first, hosted.end), range);
            }
        }
        let free = record.machine.memory_budget_bytes.saturating_sub(record.load.memory_used_bytes);
        Node {
            can_compute: candidate.takes_work,
            queue_wait_ms: micros_to_ms(queue_wait_us),
            memory_free_bytes: free.min(1 << 47),
            overhead_ms: RUN_OVERHEAD_MS,
            block_ms: self
                .manifest
                .blocks
                .iter()
                .map(|block| (micros_to_ms(block.time_us) * speed_factor).min(1e9))
                .collect(),
            loaded: loaded.into_values().collect(),
            cold_fixed_ms: COLD_FIXED_MS,
            cold_ms_per_byte: COLD_MS_PER_BYTE,
        }
    }

    fn links(&self) -> Links {
        let mut links = Links::new(self.candidates.len());
        for (from, one) in self.candidates.iter().enumerate() {
            for (to, other) in self.candidates.iter().enumerate().filter(|(to, _)| *to != from) {
                let (one, other) = (one.record, other.record);
                let LinkQuality { latency_ms, ms_per_byte } =
                    LinkQuality::between(&one.links, one.node, &other.links, other.node);
                links.set(from, to, Link { latency_ms, ms_per_byte, codec: None });
            }
        }
        links
    }
}

/// A peer's number, kept below what a planner takes.
fn micros_to_ms(micros: u64) -> f64 {
    (micros as f64 / 1000.0).min(1e9)
}

/// Bytes that each block adds. A weight that several blocks read counts at each: an upper bound.
fn block_weights_bytes(manifest: &Manifest) -> Vec<u64> {
    manifest
        .blocks
        .iter()
        .map(|block| {
            let weights = block.weights.iter().map(|index| manifest.weights[*index as usize].bytes);
            weights.fold(block.inline_bytes, u64::saturating_add).min(1 << 47)
        })
        .collect()
}

impl Posed {
    /// A shape in terms of nodes.
    pub(super) fn plan(&self, shape: &PlanShape) -> Plan {
        let stages = shape
            .stages
            .iter()
            .map(|stage| Stage {
                node: self.nodes[stage.node],
                first: stage.first,
                end: stage.end,
                backups: Vec::new(),
            })
            .collect();
        Plan { deployment: self.deployment, origin: self.nodes[0], stages }
    }
}
