//! How long each range of blocks keeps one member busy, without waiting and loading.

use super::costs::{Member, Runs};
use super::problem::Problem;
use super::ranges::Ranges;

/// One member's ranges.
pub(super) struct BusyRuns {
    overhead_ms: f64,
    extra_factor: f64,
    /// Sums of blocks' times, one more than blocks.
    before_ms: Vec<f64>,
    /// For each first block the furthest end that fits the free memory; the block itself if none does.
    end_max: Vec<usize>,
    /// By (first, end).
    known: Vec<KnownBusy>,
}

#[derive(Clone, Copy)]
struct KnownBusy {
    first: usize,
    end: usize,
    /// Infinite if it does not fit.
    busy_ms: f64,
    /// Whether it takes no free memory.
    has_memory: bool,
}

impl BusyRuns {
    pub(super) fn new(problem: &Problem, ranges: &Ranges, member: Member) -> Self {
        let node = &problem.nodes[member.node];
        let blocks = problem.block_count();
        if !member.computes {
            let end_max = (0..blocks).collect();
            return Self {
                overhead_ms: 0.0,
                extra_factor: 0.0,
                before_ms: vec![0.0; blocks + 1],
                end_max,
                known: vec![],
            };
        }
        let runs = Runs::new(problem, ranges, node);
        let mut before_ms = vec![0.0];
        for block_ms in &node.block_ms {
            before_ms.push(before_ms[before_ms.len() - 1] + block_ms);
        }
        let known = node.known.iter().map(|range| {
            let (first, end) = (usize::from(range.first), usize::from(range.end));
            let time_ms = range.time_ms.unwrap_or_else(|| node.estimate_ms(&ranges.extra, first, end));
            let fits = runs.run_ms(&ranges.extra, first, end).is_finite();
            KnownBusy {
                first,
                end,
                busy_ms: if fits { time_ms } else { f64::INFINITY },
                has_memory: range.has_memory,
            }
        });
        let mut known: Vec<KnownBusy> = known.collect();
        known.sort_unstable_by_key(|run| (run.first, run.end));
        Self {
            overhead_ms: node.overhead_ms,
            extra_factor: node.extra_factor,
            before_ms,
            end_max: runs.cold_end_max().to_vec(),
            known,
        }
    }

    /// Calls with each end and how long the run from a block to there takes, of those that take at most so long.
    pub(super) fn each(&self, ranges: &Ranges, first: usize, most_ms: f64, mut call: impl FnMut(usize, f64)) {
        let known = self.known_from(first);
        let extra_ms = ranges.extra.from(first);
        let base_ms = self.overhead_ms - self.before_ms[first];
        for end in first + 1..=self.end_max[first] {
            let blocks_ms = base_ms + self.before_ms[end];
            if blocks_ms > most_ms {
                break;
            }
            let run_ms =
                blocks_ms + self.extra_factor * extra_ms.get(end - first - 1).copied().unwrap_or(0.0);
            let is_known = !known.is_empty() && known.iter().any(|run| run.end == end);
            if run_ms <= most_ms && !is_known {
                call(end, run_ms);
            }
        }
        for run in known.iter().filter(|run| run.busy_ms <= most_ms) {
            call(run.end, run.busy_ms);
        }
    }

    /// The most that is left of `rest_ms[end]` after a run from a block to there, of runs that take at most so long;
    /// minus infinity if there is none.
    pub(super) fn most_left_ms(&self, ranges: &Ranges, first: usize, most_ms: f64, rest_ms: &[f64]) -> f64 {
        let mut left_ms = f64::NEG_INFINITY;
        if self.is_plain(ranges, first) {
            let base_ms = self.overhead_ms - self.before_ms[first];
            let before_ms = &self.before_ms[first + 1..=self.end_max[first]];
            let count = before_ms.partition_point(|before_ms| base_ms + before_ms <= most_ms);
            for (before_ms, rest_ms) in before_ms[..count].iter().zip(&rest_ms[first + 1..]) {
                let more_ms = rest_ms - (base_ms + before_ms);
                left_ms = if more_ms > left_ms { more_ms } else { left_ms };
            }
            return left_ms;
        }
        self.each(ranges, first, most_ms, |end, run_ms| left_ms = left_ms.max(rest_ms[end] - run_ms));
        left_ms
    }

    fn is_plain(&self, ranges: &Ranges, first: usize) -> bool {
        self.known.is_empty() && ranges.extra.from(first).is_empty()
    }

    /// Whether something is known of any range.
    pub(super) fn has_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Of one range; infinite if it does not fit.
    pub(super) fn ms(&self, ranges: &Ranges, first: usize, end: usize) -> f64 {
        match self.known_from(first).iter().find(|run| run.end == end) {
            Some(run) => run.busy_ms,
            None if end <= self.end_max[first] => {
                let blocks_ms = self.before_ms[end] - self.before_ms[first];
                self.overhead_ms + blocks_ms + self.extra_factor * ranges.extra.ms(first, end)
            }
            None => f64::INFINITY,
        }
    }

    /// Whether a range takes none of the free memory.
    pub(super) fn has_memory(&self, first: usize, end: usize) -> bool {
        self.known_from(first).iter().any(|run| run.end == end && run.has_memory)
    }

    fn known_from(&self, first: usize) -> &[KnownBusy] {
        let start = self.known.partition_point(|run| run.first < first);
        let count = self.known[start..].partition_point(|run| run.first == first);
        &self.known[start..start + count]
    }
}
