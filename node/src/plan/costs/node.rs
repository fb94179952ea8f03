//! What running ranges of blocks costs on one node: waits, loading and the run itself, in constant time.

use crate::plan::problem::{Extra, KnownRange, Node, Problem};
use crate::plan::ranges::Ranges;

/// A range that is known on a member, with all that running it costs.
pub(super) struct KnownRun {
    pub(super) first: usize,
    pub(super) end: usize,
    /// With loading, if it is not; infinite if its memory does not fit.
    pub(super) run_ms: f64,
    pub(super) has_memory: bool,
}

/// One member's costs of running ranges.
pub(in crate::plan) struct Runs {
    /// Known ranges by (first, end).
    pub(super) known: Vec<KnownRun>,
    /// What any range costs that must be loaded, beyond its blocks: wait, overhead, loading.
    pub(super) cold_base_ms: f64,
    /// See [`Node::extra_factor`].
    pub(super) extra_factor: f64,
    /// Sums of blocks' times and of their loading, one more than blocks.
    pub(super) cold_before_ms: Vec<f64>,
    /// For each first block the furthest end whose range fits the free memory; the block itself
    /// if none does.
    pub(super) cold_end_max: Vec<usize>,
    pub(super) memory_free_bytes: u64,
}

impl Runs {
    pub(super) fn none(ranges: &Ranges) -> Self {
        Self {
            known: vec![],
            cold_base_ms: 0.0,
            extra_factor: 0.0,
            cold_before_ms: vec![0.0; ranges.block_count() + 1],
            cold_end_max: (0..ranges.block_count()).collect(),
            memory_free_bytes: 0,
        }
    }

    pub(in crate::plan) fn new(problem: &Problem, ranges: &Ranges, node: &Node) -> Self {
        let mut before_ms = 0.0;
        let mut cold_before_ms = vec![0.0];
        for (block_ms, weights_bytes) in node.block_ms.iter().zip(&problem.block_weights_bytes) {
            before_ms += block_ms + node.cold_ms_per_byte * *weights_bytes as f64;
            cold_before_ms.push(before_ms);
        }
        let mut known: Vec<KnownRun> =
            node.known.iter().map(|range| KnownRun::new(node, ranges, range)).collect();
        known.sort_unstable_by_key(|run| (run.first, run.end));
        Self {
            known,
            cold_base_ms: node.queue_wait_ms + node.overhead_ms + node.cold_fixed_ms,
            extra_factor: node.extra_factor,
            cold_before_ms,
            cold_end_max: cold_end_max(ranges, node.memory_free_bytes),
            memory_free_bytes: node.memory_free_bytes,
        }
    }

    /// Wait, loading and run of a range; infinite if it does not fit.
    pub(in crate::plan) fn run_ms(&self, extra: &Extra, first: usize, end: usize) -> f64 {
        match self.known_from(first).iter().find(|run| run.end == end) {
            Some(run) => run.run_ms,
            None if end <= self.cold_end_max[first] => {
                self.cold_ms(first, end) + self.extra_factor * extra.ms(first, end)
            }
            None => f64::INFINITY,
        }
    }

    /// For each first block the furthest end that fits the free memory; the block itself if none does.
    pub(in crate::plan) fn cold_end_max(&self) -> &[usize] {
        &self.cold_end_max
    }

    pub(super) fn known_from(&self, first: usize) -> &[KnownRun] {
        let start = self.known.partition_point(|run| run.first < first);
        let count = self.known[start..].partition_point(|run| run.first == first);
        &self.known[start..start + count]
    }

    fn cold_ms(&self, first: usize, end: usize) -> f64 {
        self.cold_base_ms + self.cold_before_ms[end] - self.cold_before_ms[first]
    }
}

impl KnownRun {
    fn new(node: &Node, ranges: &Ranges, range: &KnownRange) -> Self {
        let (first, end) = (usize::from(range.first), usize::from(range.end));
        let warm_ms =
            node.queue_wait_ms + range.time_ms.unwrap_or_else(|| node.estimate_ms(&ranges.extra, first, end));
        let load_ms = node.cold_fixed_ms + node.cold_ms_per_byte * ranges.weights_bytes(first, end) as f64;
        let fits = range.has_memory || ranges.memory_bytes(first, end) <= node.memory_free_bytes;
        let run_ms = match range.is_loaded {
            _ if !fits => f64::INFINITY,
            true => warm_ms,
            false => warm_ms + load_ms,
        };
        Self { first, end, run_ms, has_memory: range.has_memory }
    }
}

/// The furthest end never moves back as the first block moves on, so one pass finds all.
fn cold_end_max(ranges: &Ranges, memory_free_bytes: u64) -> Vec<usize> {
    let mut end = 0;
    let furthest = (0..ranges.block_count()).map(|first| {
        end = end.max(first);
        while end < ranges.block_count() && ranges.memory_bytes(first, end + 1) <= memory_free_bytes {
            end += 1;
        }
        end
    });
    furthest.collect()
}
