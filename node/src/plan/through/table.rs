//! What runs between some cuts take on every node, by node, for loops over all of them.

use crate::plan::candidates::take_least;
use crate::plan::costs::Stock;
use crate::plan::problem::Node;
use crate::plan::ranges::Ranges;

/// A figure for each node.
pub(super) type Row = Vec<f32>;

/// Wait, loading and run of every range between some cuts on every node but the origin.
pub(super) struct Times {
    cuts: usize,
    /// Wait, overhead and what loading takes at least.
    base_ms: Row,
    extra_factors: Row,
    /// By cut: all blocks before it, run and loaded.
    before_ms: Vec<Row>,
    /// All blocks, run.
    whole_ms: Row,
    /// By cut: the furthest of these cuts up to which a run from there fits; the cut itself if none does.
    end_max: Vec<Vec<i32>>,
    /// By (first, end).
    extra_ms: Vec<f32>,
    known: Vec<Known>,
}

/// A range of which something is known.
struct Known {
    first: usize,
    end: usize,
    node: usize,
    run_ms: f32,
}

impl Times {
    pub(super) fn new(stock: &Stock, cuts: &[usize]) -> Self {
        let (problem, ranges) = (stock.problem, stock.ranges);
        let nodes = problem.nodes.len();
        let pairs = || cuts.iter().flat_map(|first| cuts.iter().map(move |end| (*first, *end)));
        let extra_ms = |(first, end)| if first < end { ranges.extra.ms(first, end) as f32 } else { 0.0 };
        let of_pair = |(first, end)| if first < end { ranges.memory_bytes(first, end) } else { 0 };
        let memory_bytes: Vec<u64> = pairs().map(of_pair).collect();
        let mut times = Self {
            cuts: cuts.len(),
            base_ms: vec![f32::INFINITY; nodes],
            extra_factors: vec![0.0; nodes],
            before_ms: vec![vec![0.0; nodes]; cuts.len()],
            whole_ms: vec![f32::INFINITY; nodes],
            end_max: vec![vec![-1; nodes]; cuts.len()],
            extra_ms: pairs().map(extra_ms).collect(),
            known: vec![],
        };
        let others = problem.nodes.iter().enumerate().skip(1);
        for (index, node) in others.filter(|(_, node)| node.can_compute) {
            times.base_ms[index] = (node.queue_wait_ms + node.overhead_ms + node.cold_fixed_ms) as f32;
            times.extra_factors[index] = node.extra_factor as f32;
            times.add_blocks(index, node, ranges, cuts);
            times.add_ends(index, node.memory_free_bytes, &memory_bytes);
            if !node.known.is_empty() {
                times.add_known(stock, index, cuts);
            }
        }
        times
    }

    fn add_blocks(&mut self, index: usize, node: &Node, ranges: &Ranges, cuts: &[usize]) {
        let mut blocks_ms = 0.0;
        for (cut, ends) in cuts.windows(2).enumerate() {
            blocks_ms += node.block_ms[ends[0]..ends[1]].iter().sum::<f64>();
            let load_ms = node.cold_ms_per_byte * ranges.weights_bytes(0, ends[1]) as f64;
            self.before_ms[cut + 1][index] = (blocks_ms + load_ms) as f32;
        }
        self.whole_ms[index] = blocks_ms as f32;
    }

    /// The furthest end never moves back as the first cut moves on.
    fn add_ends(&mut self, index: usize, memory_free_bytes: u64, memory_bytes: &[u64]) {
        let mut end = 0;
        for first in 0..self.cuts {
            end = end.max(first);
            while end + 1 < self.cuts && memory_bytes[first * self.cuts + end + 1] <= memory_free_bytes {
                end += 1;
            }
            self.end_max[first][index] = end as i32;
        }
    }

    fn add_known(&mut self, stock: &Stock, node: usize, cuts: &[usize]) {
        for range in &stock.problem.nodes[node].known {
            let place = |cut: u16| cuts.binary_search(&usize::from(cut));
            if let (Ok(first), Ok(end)) = (place(range.first), place(range.end)) {
                let run_ms = stock.runs(node).run_ms(&stock.ranges.extra, cuts[first], cuts[end]) as f32;
                self.known.push(Known { first, end, node, run_ms });
            }
        }
    }

    /// The origin, and the other machines that take least for all blocks: at most so many.
    pub(super) fn quickest(&self, count_max: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> =
            (1..self.whole_ms.len()).filter(|node| self.whole_ms[*node].is_finite()).collect();
        let others = take_least(&mut nodes, count_max.saturating_sub(1), |node| self.whole_ms[node]);
        std::iter::once(0).chain(others).collect()
    }

    /// Of one range on every node; infinite where it does not fit.
    pub(super) fn runs_ms(&self, first: usize, end: usize, runs_ms: &mut [f32]) {
        let (extra_ms, place) = (self.extra_ms[first * self.cuts + end], end as i32);
        let blocks = self.before_ms[first].iter().zip(&self.before_ms[end]).zip(&self.end_max[first]);
        let nodes = self.base_ms.iter().zip(&self.extra_factors).zip(blocks);
        for (run_ms, ((base_ms, factor), ((before_ms, until_ms), end_max))) in runs_ms.iter_mut().zip(nodes) {
            let all_ms = base_ms + (until_ms - before_ms) + factor * extra_ms;
            *run_ms = if place <= *end_max { all_ms } else { f32::INFINITY };
        }
        for known in self.known.iter().filter(|known| (known.first, known.end) == (first, end)) {
            runs_ms[known.node] = known.run_ms;
        }
    }
}
