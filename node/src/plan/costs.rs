//! A problem compiled for search over some of its nodes: costs of runs and transfers in constant
//! time. Must agree with `price`; finds nothing itself.

mod codings;
mod least;
mod node;
mod stock;

use std::rc::Rc;

use self::codings::CodingCosts;
use self::least::{keep_least_sums, least_sum_with};
use self::node::KnownRun;
use super::bounds::Last;
use super::problem::Factors;
use super::ranges::Ranges;
use super::wanted::Wanted;

pub(super) use self::codings::Codings;
pub(super) use self::least::least_sum;
pub(super) use self::node::Runs;
pub(super) use self::stock::Stock;

/// A node that takes part in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Index into [`Problem::nodes`].
    pub(super) node: usize,
    /// Whether it may be given stages; the origin takes part even if not.
    pub(super) computes: bool,
}

/// A problem over some members, the first of which is the origin.
pub(super) struct Costs<'a> {
    pub(super) ranges: &'a Ranges,
    members: Vec<Member>,
    runs: Vec<Rc<Runs>>,
    /// `latency_ms[from * members + to]`: infinite where no link leads, and on the diagonal.
    latency_ms: Vec<f64>,
    ms_per_byte: Vec<f64>,
    codings: Rc<Codings>,
    encode_factors: Vec<Factors>,
    decode_factors: Vec<Factors>,
    force_first: bool,
    force_last: bool,
    wanted: Wanted<'a>,
}

impl<'a> Costs<'a> {
    /// `members[0]` must be the origin. Where agreement has a price, losses count as times; at an infinite
    /// one, all codings are lossless.
    pub(super) fn new(stock: &Stock<'a>, members: Vec<Member>, loss_price_ms: f64) -> Self {
        Self::by(stock, members, stock.worthwhile(loss_price_ms))
    }

    /// With every coding of each cut in the problem's order, as it is first, at no price.
    pub(super) fn by_coding(stock: &Stock<'a>, members: Vec<Member>) -> Self {
        Self::by(stock, members, stock.every())
    }

    fn by(stock: &Stock<'a>, members: Vec<Member>, codings: Rc<Codings>) -> Self {
        let problem = stock.problem;
        let count = members.len();
        let mut latency_ms = vec![f64::INFINITY; count * count];
        let mut ms_per_byte = vec![0.0; count * count];
        for (from, sender) in members.iter().enumerate() {
            for (to, receiver) in members.iter().enumerate() {
                if let Some(link) = problem.links.get(sender.node, receiver.node).filter(|_| from != to) {
                    latency_ms[from * count + to] = link.latency_ms;
                    ms_per_byte[from * count + to] = link.ms_per_byte;
                }
            }
        }
        let runs = |member: &Member| match member.computes {
            true => stock.runs(member.node).clone(),
            false => Rc::new(Runs::none(stock.ranges)),
        };
        let nodes = || members.iter().map(|member| &problem.nodes[member.node]);
        Self {
            ranges: stock.ranges,
            runs: members.iter().map(runs).collect(),
            latency_ms,
            ms_per_byte,
            codings,
            encode_factors: nodes().map(|node| node.encode_factors).collect(),
            decode_factors: nodes().map(|node| node.decode_factors).collect(),
            members,
            force_first: problem.force_first,
            force_last: problem.force_last,
            wanted: stock.wanted,
        }
    }

    pub(super) fn block_count(&self) -> usize {
        self.ranges.block_count()
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Whether a search over these is to go on.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_wanted()
    }

    /// A member as it was given.
    pub(super) fn member(&self, member: usize) -> Member {
        self.members[member]
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
        for coding in self.codings.of(cut) {
            let hop_ms = self.coded_ms(from, to, coding);
            best_ms = if hop_ms < best_ms { hop_ms } else { best_ms };
        }
        best_ms
    }

    /// Time to bring a cut's tensors from one member to another by one of its codings; infinite if no link
    /// leads there.
    pub(super) fn hop_by_ms(&self, from: usize, to: usize, cut: usize, coding: usize) -> f64 {
        self.coded_ms(from, to, &self.codings.of(cut)[coding])
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

    /// For each of the first so many members the least of moving a cut's tensors to another one that starts there, and
    /// of what comes then.
    pub(super) fn best_moves_ms(&self, cut: usize, start_ms: &[f64], moved_ms: &mut [f64]) {
        moved_ms.fill(f64::INFINITY);
        if cut == 0 && self.force_first {
            return;
        }
        let count = self.members.len();
        let mut received_ms = vec![0.0; count];
        for coding in self.codings.of(cut) {
            let receivers = start_ms.iter().zip(&self.decode_factors);
            for (received_ms, (start_ms, factors)) in received_ms.iter_mut().zip(receivers) {
                *received_ms = coding.decode_ms * factors.of(coding.codec) + coding.loss_ms + start_ms;
            }
            let links = self.latency_ms.chunks_exact(count).zip(self.ms_per_byte.chunks_exact(count));
            let senders = links.zip(&self.encode_factors).zip(&mut *moved_ms);
            for (((latency_ms, ms_per_byte), factors), moved_ms) in senders {
                let rest_ms = least_sum_with(latency_ms, &received_ms, ms_per_byte, coding.bytes);
                *moved_ms = moved_ms.min(coding.encode_ms * factors.of(coding.codec) + rest_ms);
            }
        }
    }

    /// For each member the least of what leads to a cut's tensors at any, and of bringing them to this one, which starts.
    pub(super) fn best_arrivals_ms(&self, cut: usize, before_ms: &[f64], begun_ms: &mut [f64]) {
        begun_ms.copy_from_slice(before_ms);
        let count = self.members.len();
        for coding in self.codings.of(cut) {
            let mut arrived_ms = vec![f64::INFINITY; count];
            let links = self.latency_ms.chunks_exact(count).zip(self.ms_per_byte.chunks_exact(count));
            let senders = links.zip(&self.encode_factors).zip(before_ms);
            for (((latency_ms, ms_per_byte), factors), before_ms) in senders {
                let sent_ms = before_ms + coding.encode_ms * factors.of(coding.codec) + coding.loss_ms;
                if sent_ms.is_finite() {
                    keep_least_sums(&mut arrived_ms, sent_ms, latency_ms, (ms_per_byte, coding.bytes));
                }
            }
            for ((begun_ms, arrived_ms), factors) in
                begun_ms.iter_mut().zip(arrived_ms).zip(&self.decode_factors)
            {
                *begun_ms = begun_ms.min(arrived_ms + coding.decode_ms * factors.of(coding.codec));
            }
        }
        if cut == 0 && self.force_first {
            begun_ms[1..].fill(f64::INFINITY);
        }
    }

    /// Keeps for each end the least of what is known and of a run from a cut to there that begins at some time.
    pub(super) fn run_on(&self, member: usize, first: usize, begun_ms: f64, done_ms: &mut [f64]) {
        let runs = &self.runs[member];
        let (extra_ms, extra) = (self.ranges.extra.from(first), runs.extra_factor);
        let base_ms = begun_ms + runs.cold_base_ms - runs.cold_before_ms[first];
        let known = runs.known_from(first);
        let ends = done_ms.iter_mut().enumerate().take(runs.cold_end_max[first] + 1).skip(first + 1);
        for (end, done_ms) in ends {
            let extra_ms = extra * extra_ms.get(end - first - 1).unwrap_or(&0.0);
            let run_ms = base_ms + runs.cold_before_ms[end] + extra_ms;
            let is_known = !known.is_empty() && known.iter().any(|run| run.end == end);
            *done_ms = if run_ms < *done_ms && !is_known { run_ms } else { *done_ms };
        }
        for run in known {
            done_ms[run.end] = done_ms[run.end].min(begun_ms + run.run_ms);
        }
    }
}
