//! From what a node believes about the mesh to a planner's problem, and from its answer to a plan.

use std::collections::BTreeMap;
use std::ops::Range;

use stormo_protocol::ids::{NodeId, VariantId};
use stormo_protocol::model::{Block, Manifest};
use stormo_protocol::plan::{Plan, Stage};
use stormo_protocol::state::{Hosted, NodeRecord};

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
    pub variant: VariantId,
    /// The manifest's block that is the problem's first.
    pub first: u16,
}

/// What a planner is asked.
pub(super) struct Question<'a> {
    pub manifest: &'a Manifest,
    pub variant: VariantId,
    /// The blocks to run: all, or without the ends.
    pub blocks: Range<u16>,
    /// This node first.
    pub candidates: Vec<Candidate<'a>>,
    pub force_first: bool,
    pub force_last: bool,
}

impl Question<'_> {
    pub(super) fn pose(&self) -> Posed {
        let Range { start, end } = self.blocks;
        Posed {
            problem: Problem {
                cut_bytes: (start..=end).map(|cut| self.manifest.cut_bytes(cut)).collect(),
                block_weights_bytes: self.blocks().map(|block| self.weights_bytes(block)).collect(),
                block_peak_bytes: self.blocks().map(|block| block.peak_activation_bytes).collect(),
                nodes: self.candidates.iter().map(|candidate| self.node(candidate)).collect(),
                links: self.links(),
                force_first: self.force_first,
                force_last: self.force_last,
            },
            nodes: self.candidates.iter().map(|candidate| candidate.record.node).collect(),
            variant: self.variant,
            first: start,
        }
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.manifest.blocks[usize::from(self.blocks.start)..usize::from(self.blocks.end)].iter()
    }

    /// Bytes that a block adds. A weight that several blocks read counts at each: an upper bound.
    fn weights_bytes(&self, block: &Block) -> u64 {
        let weights = block.weights.iter().map(|index| self.manifest.weights[*index as usize].bytes);
        weights.fold(block.inline_bytes, u64::saturating_add).min(1 << 47)
    }

    fn block_ms(&self, block: &Block, speed_factor: f64) -> f64 {
        (micros_to_ms(block.time_us) * speed_factor).min(1e9)
    }

    /// Ranges that are ready on a node, in the problem's blocks. A session holds a part of the graph; the
    /// ends need none, so a session with or without an end beside it is ready, and so is an end alone.
    fn loaded(&self, hosted: &[Hosted], speed_factor: f64) -> Vec<LoadedRange> {
        let graph = self.manifest.graph_blocks();
        let end_ms = |from: u16, to: u16| -> f64 {
            let blocks = &self.manifest.blocks[usize::from(from)..usize::from(to)];
            blocks.iter().map(|block| self.block_ms(block, speed_factor)).sum()
        };
        let before_ms = end_ms(self.blocks.start, graph.start.max(self.blocks.start));
        let behind_ms = end_ms(graph.end.min(self.blocks.end), self.blocks.end);
        let mut loaded: BTreeMap<(u16, u16), f64> = BTreeMap::new();
        for hosted in hosted.iter().filter(|hosted| hosted.variant == self.variant) {
            let (first, end) = (hosted.first, hosted.end);
            if first < graph.start || end > graph.end || first >= end {
                continue;
            }
            let time_ms = RUN_OVERHEAD_MS + micros_to_ms(hosted.time_us);
            let firsts = [(first, 0.0), (self.blocks.start, before_ms)];
            let ends = [(end, 0.0), (self.blocks.end, behind_ms)];
            for (first, before_ms) in &firsts[..if first == graph.start { 2 } else { 1 }] {
                for (end, behind_ms) in &ends[..if end == graph.end { 2 } else { 1 }] {
                    loaded.insert((*first, *end), time_ms + before_ms + behind_ms);
                }
            }
        }
        for (first, end) in [(self.blocks.start, graph.start), (graph.end, self.blocks.end)] {
            if first < end {
                loaded.insert((first, end), RUN_OVERHEAD_MS + end_ms(first, end));
            }
        }
        let offset = self.blocks.start;
        let ranges = loaded.into_iter().map(|((first, end), time_ms)| LoadedRange {
            first: first - offset,
            end: end - offset,
            time_ms: Some(time_ms.min(1e9)),
        });
        ranges.collect()
    }

    fn node(&self, candidate: &Candidate<'_>) -> Node {
        let record = candidate.record;
        let speed_factor = self.manifest.reference_mflops / record.machine.mflops;
        let queue_wait_us = record.hosted.iter().map(|hosted| hosted.queue_wait_us).max().unwrap_or(0);
        let free = record.machine.memory_budget_bytes.saturating_sub(record.load.memory_used_bytes);
        Node {
            can_compute: candidate.takes_work,
            queue_wait_ms: micros_to_ms(queue_wait_us),
            memory_free_bytes: free.min(1 << 47),
            overhead_ms: RUN_OVERHEAD_MS,
            block_ms: self.blocks().map(|block| self.block_ms(block, speed_factor)).collect(),
            loaded: self.loaded(&record.hosted, speed_factor),
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

impl Posed {
    /// A shape in terms of nodes.
    pub(super) fn plan(&self, shape: &PlanShape) -> Plan {
        let stages = shape
            .stages
            .iter()
            .map(|stage| Stage {
                node: self.nodes[stage.node],
                first: stage.first + self.first,
                end: stage.end + self.first,
                backups: Vec::new(),
            })
            .collect();
        Plan { variant: self.variant, origin: self.nodes[0], stages }
    }
}
