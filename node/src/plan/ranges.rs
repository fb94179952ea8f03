//! Memory of any range of blocks, and what it takes beyond its blocks, asked for in constant time. Only
//! the model's own numbers; nothing of nodes.

use super::problem::{Extra, Problem};

/// Prefix sums of weights and a sparse table of peak activations.
pub(super) struct Ranges {
    weights_before: Vec<u64>,
    /// `peaks[level][i]` is the largest of the `2^level` blocks from `i`.
    peaks: Vec<Vec<u64>>,
    pub(super) extra: Extra,
}

impl Ranges {
    pub(super) fn new(problem: &Problem) -> Self {
        let mut weights_before = vec![0];
        let mut sum = 0;
        for bytes in &problem.block_weights_bytes {
            sum += bytes;
            weights_before.push(sum);
        }
        let mut peaks = vec![problem.block_peak_bytes.clone()];
        let mut width = 1;
        while 2 * width <= problem.block_count() {
            let below = &peaks[peaks.len() - 1];
            let level =
                (0..=problem.block_count() - 2 * width).map(|i| below[i].max(below[i + width])).collect();
            peaks.push(level);
            width *= 2;
        }
        Self { weights_before, peaks, extra: problem.extra.clone() }
    }

    /// How many blocks there are.
    pub(super) fn block_count(&self) -> usize {
        self.weights_before.len() - 1
    }

    /// Weights of a range; none if it is empty.
    pub(super) fn weights_bytes(&self, first: usize, end: usize) -> u64 {
        self.weights_before[end] - self.weights_before[first]
    }

    /// Largest live activations of a range; none if it is empty.
    pub(super) fn peak_bytes(&self, first: usize, end: usize) -> u64 {
        if first >= end {
            return 0;
        }
        let level = (end - first).ilog2() as usize;
        self.peaks[level][first].max(self.peaks[level][end - (1 << level)])
    }

    /// What loading and running a range takes.
    pub(super) fn memory_bytes(&self, first: usize, end: usize) -> u64 {
        self.weights_bytes(first, end) + self.peak_bytes(first, end)
    }
}
