//! A problem compiled for search over some of its nodes: costs of runs and transfers in constant
//! time. Must agree with `price`; finds nothing itself.

use stormo_protocol::codec::payload::Codec;

use super::bounds::Last;
use super::coding::Coding;
use super::problem::{Extra, Factors, KnownRange, Node, Problem};
use super::ranges::Ranges;

/// A node that takes part in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Index into [`Problem::nodes`].
    pub(super) node: usize,
    /// Whether it may be given stages; the origin takes part even if not.
    pub(super) computes: bool,
}

/// A range that is known on a member, with all that running it costs.
struct KnownRun {
    first: usize,
    end: usize,
    /// With loading, if it is not; infinite if its memory does not fit.
    run_ms: f64,
    has_memory: bool,
}

/// One member's costs of running ranges.
pub(super) struct Runs {
    /// Known ranges by (first, end).
    known: Vec<KnownRun>,
    /// What any range costs that must be loaded, beyond its blocks: wait, overhead, loading.
    cold_base_ms: f64,
    /// See [`Node::extra_factor`].
    extra_factor: f64,
    /// Sums of blocks' times and of their loading, one more than blocks.
    cold_before_ms: Vec<f64>,
    /// For each first block the furthest end whose range fits the free memory; the block itself
    /// if none does.
    cold_end_max: Vec<usize>,
    memory_free_bytes: u64,
}

/// What a way to send a cut costs, wherever it goes.
struct CodingCosts {
    codec: Codec,
    bytes: f64,
    encode_ms: f64,
    decode_ms: f64,
    /// Its loss, at the price of agreement.
    loss_ms: f64,
}

/// A problem over some members, the first of which is the origin.
pub(super) struct Costs<'a> {
    pub(super) ranges: &'a Ranges,
    members: Vec<Member>,
    runs: Vec<Runs>,
    /// `latency_ms[from * members + to]`: infinite where no link leads, zero on the diagonal.
    latency_ms: Vec<f64>,
    ms_per_byte: Vec<f64>,
    /// Ways to send each cut that may be best somewhere.
    codings: Vec<Vec<CodingCosts>>,
    encode_factors: Vec<Factors>,
    decode_factors: Vec<Factors>,
    force_first: bool,
    force_last: bool,
}

impl<'a> Costs<'a> {
    /// `members[0]` must be the origin. Where agreement has a price, losses count as times; at an infinite
    /// one, all codings are lossless.
    pub(super) fn new(
        problem: &Problem,
        ranges: &'a Ranges,
        members: Vec<Member>,
        loss_price_ms: f64,
    ) -> Self {
        let cuts = 0..=problem.block_count() as u16;
        let are_same = |member: &Member| {
            let node = &problem.nodes[member.node];
            node.encode_factors.are_same() && node.decode_factors.are_same()
        };
        // Where a codec is quicker than another here and slower there, neither beats the other.
        let may_drop = members.iter().all(are_same);
        let codings = cuts.map(|cut| worthwhile(coding_costs(problem.codings(cut), loss_price_ms), may_drop));
        let codings = codings.collect();
        Self::by(problem, ranges, members, codings)
    }

    /// With every coding of each cut in the problem's order, as it is first, at no price.
    pub(super) fn by_coding(problem: &Problem, ranges: &'a Ranges, members: Vec<Member>) -> Self {
        let cuts = 0..=problem.block_count() as u16;
        let codings = cuts.map(|cut| coding_costs(problem.codings(cut), 0.0).collect()).collect();
        Self::by(problem, ranges, members, codings)
    }

    fn by(
        problem: &Problem,
        ranges: &'a Ranges,
        members: Vec<Member>,
        codings: Vec<Vec<CodingCosts>>,
    ) -> Self {
        let count = members.len();
        let mut latency_ms = vec![f64::INFINITY; count * count];
        let mut ms_per_byte = vec![0.0; count * count];
        for (from, sender) in members.iter().enumerate() {
            latency_ms[from * count + from] = 0.0;
            for (to, receiver) in members.iter().enumerate() {
                if let Some(link) = problem.links.get(sender.node, receiver.node).filter(|_| from != to) {
                    latency_ms[from * count + to] = link.latency_ms;
                    ms_per_byte[from * count + to] = link.ms_per_byte;
                }
            }
        }
        let runs = members.iter().map(|member| {
            let node = &problem.nodes[member.node];
            if member.computes { Runs::new(problem, ranges, node) } else { Runs::none(ranges) }
        });
        let nodes = || members.iter().map(|member| &problem.nodes[member.node]);
        Self {
            ranges,
            runs: runs.collect(),
            latency_ms,
            ms_per_byte,
            codings,
            encode_factors: nodes().map(|node| node.encode_factors).collect(),
            decode_factors: nodes().map(|node| node.decode_factors).collect(),
            members,
            force_first: problem.force_first,
            force_last: problem.force_last,
        }
    }

    pub(super) fn block_count(&self) -> usize {
        self.ranges.block_count()
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The node behind a member.
    pub(super) fn node(&self, member: usize) -> usize {
        self.members[member].node
    }

    pub(super) fn memory_free_bytes(&self, member: usize) -> u64 {
        self.runs[member].memory_free_bytes
    }

    /// Time to bring a cut's tensors from one member to the stage that another starts there;
    /// infinite if no link leads there or the stage may not start there.
    pub(super) fn enter_ms(&self, from: usize, to: usize, cut: usize) -> f64 {
        if cut == 0 && self.force_first && to != 0 {
            return f64::INFINITY;
        }
        self.hop_ms(from, to, cut)
    }

    /// Time to bring a cut's tensors from one member to another, by the best coding.
    fn hop_ms(&self, from: usize, to: usize, cut: usize) -> f64 {
        if from == to {
            return 0.0;
        }
        let mut best_ms = f64::INFINITY;
        for coding in &self.codings[cut] {
            let hop_ms = self.coded_ms(from, to, coding);
            best_ms = if hop_ms < best_ms { hop_ms } else { best_ms };
        }
        best_ms
    }

    /// Time to bring a cut's tensors from one member to another by one of its codings; infinite if no link
    /// leads there.
    pub(super) fn hop_by_ms(&self, from: usize, to: usize, cut: usize, coding: usize) -> f64 {
        self.coded_ms(from, to, &self.codings[cut][coding])
    }

    // In the order of `Coding::transfer_ms`, so that not even rounding differs.
    fn coded_ms(&self, from: usize, to: usize, coding: &CodingCosts) -> f64 {
        let link = from * self.members.len() + to;
        let encode_ms = coding.encode_ms * self.encode_factors[from].of(coding.codec);
        let coding_ms = encode_ms + coding.decode_ms * self.decode_factors[to].of(coding.codec);
        self.latency_ms[link] + self.ms_per_byte[link] * coding.bytes + coding_ms + coding.loss_ms
    }

    /// Whether a stage may start at a member from a cut on, and the result come from there.
    pub(super) fn may_start(&self, member: usize, cut: usize) -> bool {
        cut > 0 || !self.force_first || member == 0
    }

    /// Whether the result may come from a member.
    pub(super) fn may_end(&self, member: usize) -> bool {
        !self.force_last || member == 0
    }

    /// Time to bring the result home; infinite if it may not come from there.
    pub(super) fn result_ms(&self, from: usize) -> f64 {
        if self.force_last && from != 0 {
            return f64::INFINITY;
        }
        self.hop_ms(from, 0, self.block_count())
    }

    /// Wait, loading and run of a range; infinite if it does not fit.
    pub(super) fn run_ms(&self, member: usize, first: usize, end: usize) -> f64 {
        self.runs[member].run_ms(&self.ranges.extra, first, end)
    }

    /// What a member has done once it has run a range.
    pub(super) fn last_after(&self, member: usize, first: usize, end: usize) -> Last {
        let is_loaded =
            self.runs[member].known_from(first).iter().any(|run| run.end == end && run.has_memory);
        if is_loaded { Last::Other } else { Last::Cold }
    }

    /// Whether two ranges that the member would load may as well be one if they meet at this cut:
    /// one is never slower and takes no more memory. Unless the whole, or one of the two, is known: then it
    /// costs what it costs.
    pub(super) fn may_merge(&self, member: usize, cut: usize) -> bool {
        let is_excepted = |run: &KnownRun| match run.has_memory {
            true => run.first < cut && cut < run.end,
            false => run.first <= cut && cut <= run.end,
        };
        !self.runs[member].known.iter().any(is_excepted)
    }

    /// The least of `run_ms(member, first, end)` and what comes after, over all ends.
    pub(super) fn best_run_ms(
        &self,
        member: usize,
        first: usize,
        after_cold_ms: &[f64],
        after_loaded_ms: &[f64],
    ) -> f64 {
        let runs = &self.runs[member];
        let base_ms = runs.cold_base_ms - runs.cold_before_ms[first];
        let extra_ms = self.ranges.extra.from(first);
        let cold_ms = |from: usize, to: usize| {
            let (before_ms, after_ms) = (&runs.cold_before_ms[from..to], &after_cold_ms[from..to]);
            match extra_ms.get(from - first - 1..to - first - 1) {
                Some(extra_ms) => base_ms + least_sum_with(before_ms, after_ms, extra_ms, runs.extra_factor),
                None => base_ms + least_sum(before_ms, after_ms),
            }
        };
        // A known range costs what it costs even if loading it anew were cheaper, so the cold
        // ends are taken in the stretches that known ends leave.
        let (mut best_ms, mut from) = (f64::INFINITY, first + 1);
        let stop = runs.cold_end_max[first] + 1;
        for run in runs.known_from(first) {
            if from < run.end.min(stop) {
                best_ms = best_ms.min(cold_ms(from, run.end.min(stop)));
            }
            let after_ms = if run.has_memory { after_loaded_ms } else { after_cold_ms };
            best_ms = best_ms.min(run.run_ms + after_ms[run.end]);
            from = run.end + 1;
        }
        if from < stop { best_ms.min(cold_ms(from, stop)) } else { best_ms }
    }

    /// The same over loaded ranges only.
    pub(super) fn best_loaded_run_ms(&self, member: usize, first: usize, after_loaded_ms: &[f64]) -> f64 {
        let loaded = self.runs[member].known_from(first).iter().filter(|run| run.has_memory);
        let totals = loaded.map(|run| run.run_ms + after_loaded_ms[run.end]);
        totals.fold(f64::INFINITY, f64::min)
    }

    /// The least of `enter_ms(from, to, cut) + start_ms[to]` over all members but the sender.
    pub(super) fn best_move_ms(&self, from: usize, cut: usize, start_ms: &[f64]) -> f64 {
        let mut best_ms = f64::INFINITY;
        for (to, start_ms) in start_ms.iter().enumerate() {
            let total_ms = self.enter_ms(from, to, cut) + start_ms;
            if total_ms < best_ms && to != from {
                best_ms = total_ms;
            }
        }
        best_ms
    }
}

fn coding_costs(
    codings: impl Iterator<Item = Coding>,
    loss_price_ms: f64,
) -> impl Iterator<Item = CodingCosts> {
    codings.map(move |coding| CodingCosts {
        codec: coding.codec,
        bytes: coding.bytes as f64,
        encode_ms: coding.encode_ms,
        decode_ms: coding.decode_ms,
        loss_ms: coding.loss_ms(loss_price_ms),
    })
}

/// Ways to send a cut without those that another one beats in every respect.
fn worthwhile(codings: impl Iterator<Item = CodingCosts>, may_drop: bool) -> Vec<CodingCosts> {
    let mut kept: Vec<CodingCosts> = Vec::new();
    for costs in codings.filter(|costs| costs.loss_ms.is_finite()) {
        if !may_drop {
            kept.push(costs);
        } else if !kept.iter().any(|known| known.is_never_worse_than(&costs)) {
            kept.retain(|known| !costs.is_never_worse_than(known));
            kept.push(costs);
        }
    }
    kept
}

impl CodingCosts {
    fn is_never_worse_than(&self, other: &Self) -> bool {
        self.bytes <= other.bytes
            && self.encode_ms <= other.encode_ms
            && self.decode_ms <= other.decode_ms
            && self.loss_ms <= other.loss_ms
    }
}

/// The least of `a[i] + b[i]`. Four lanes, since one chain of comparisons would wait for itself.
fn least_sum(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [f64::INFINITY; 4];
    let (a_lanes, b_lanes) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest = a_lanes.remainder().iter().zip(b_lanes.remainder());
    for (a, b) in a_lanes.zip(b_lanes) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            let sum = a + b;
            *lane = if sum < *lane { sum } else { *lane };
        }
    }
    rest.map(|(a, b)| a + b).chain(lanes).fold(f64::INFINITY, f64::min)
}

/// The least of `a[i] + b[i] + factor * c[i]`, likewise.
fn least_sum_with(a: &[f64], b: &[f64], c: &[f64], factor: f64) -> f64 {
    let mut lanes = [f64::INFINITY; 4];
    let (a_lanes, b_lanes, c_lanes) = (a.chunks_exact(4), b.chunks_exact(4), c.chunks_exact(4));
    let rest = a_lanes.remainder().iter().zip(b_lanes.remainder()).zip(c_lanes.remainder());
    for ((a, b), c) in a_lanes.zip(b_lanes).zip(c_lanes) {
        for (lane, ((a, b), c)) in lanes.iter_mut().zip(a.iter().zip(b).zip(c)) {
            let sum = a + b + factor * c;
            *lane = if sum < *lane { sum } else { *lane };
        }
    }
    rest.map(|((a, b), c)| a + b + factor * c).chain(lanes).fold(f64::INFINITY, f64::min)
}

impl Runs {
    fn none(ranges: &Ranges) -> Self {
        Self {
            known: vec![],
            cold_base_ms: 0.0,
            extra_factor: 0.0,
            cold_before_ms: vec![0.0; ranges.block_count() + 1],
            cold_end_max: (0..ranges.block_count()).collect(),
            memory_free_bytes: 0,
        }
    }

    pub(super) fn new(problem: &Problem, ranges: &Ranges, node: &Node) -> Self {
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
    pub(super) fn run_ms(&self, extra: &Extra, first: usize, end: usize) -> f64 {
        match self.known_from(first).iter().find(|run| run.end == end) {
            Some(run) => run.run_ms,
            None if end <= self.cold_end_max[first] => {
                self.cold_ms(first, end) + self.extra_factor * extra.ms(first, end)
            }
            None => f64::INFINITY,
        }
    }

    /// For each first block the furthest end that fits the free memory; the block itself if none does.
    pub(super) fn cold_end_max(&self) -> &[usize] {
        &self.cold_end_max
    }

    fn known_from(&self, first: usize) -> &[KnownRun] {
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
