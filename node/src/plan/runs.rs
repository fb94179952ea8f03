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
    /// minus infinity if there is none. No run that is so short goes beyond `end_max`, which is made less if it can be:
    /// it holds for all blocks before this one as well.
    pub(super) fn most_left_ms(
        &self,
        ranges: &Ranges,
        first: usize,
        most_ms: f64,
        rest_ms: &[f64],
        end_max: &mut usize,
    ) -> f64 {
        let mut left_ms = f64::NEG_INFINITY;
        if self.is_plain(ranges, first) {
            let base_ms = self.overhead_ms - self.before_ms[first];
            *end_max = self.end_max[first].min(*end_max);
            while *end_max > first && base_ms + self.before_ms[*end_max] > most_ms {
                *end_max -= 1;
            }
            if *end_max <= first {
                *end_max = first;
                return left_ms;
            }
            let ends = first + 1..*end_max + 1;
            return most_left(base_ms, &self.before_ms[ends.clone()], &rest_ms[ends]);
        }
        self.each(ranges, first, most_ms, |end, run_ms| left_ms = left_ms.max(rest_ms[end] - run_ms));
        left_ms
    }

    /// The furthest end of runs from a block on that take at most so long and suit.
    pub(super) fn furthest(
        &self,
        ranges: &Ranges,
        first: usize,
        most_ms: f64,
        suits: impl Fn(usize, f64) -> bool,
    ) -> Option<usize> {
        if !self.is_plain(ranges, first) {
            let mut furthest = None;
            self.each(ranges, first, most_ms, |end, run_ms| {
                furthest = furthest.max(Some(end).filter(|_| suits(end, run_ms)));
            });
            return furthest;
        }
        let base_ms = self.overhead_ms - self.before_ms[first];
        let run_ms = |end: &usize| base_ms + self.before_ms[*end];
        (first + 1..=self.end_max[first]).rev().find(|end| run_ms(end) <= most_ms && suits(*end, run_ms(end)))
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

/// The most of `rest_ms[i] - (base_ms + before_ms[i])`. Four lanes, since one chain of comparisons would wait for itself.
fn most_left(base_ms: f64, before_ms: &[f64], rest_ms: &[f64]) -> f64 {
    let mut lanes = [f64::NEG_INFINITY; 4];
    let (before, rest) = (before_ms.chunks_exact(4), rest_ms.chunks_exact(4));
    let last = before.remainder().iter().zip(rest.remainder());
    for (before, rest) in before.zip(rest) {
        for (lane, (before_ms, rest_ms)) in lanes.iter_mut().zip(before.iter().zip(rest)) {
            let left_ms = rest_ms - (base_ms + before_ms);
            *lane = if left_ms > *lane { left_ms } else { *lane };
        }
    }
    let last = last.map(|(before_ms, rest_ms)| rest_ms - (base_ms + before_ms));
    last.chain(lanes).fold(f64::NEG_INFINITY, f64::max)
}
