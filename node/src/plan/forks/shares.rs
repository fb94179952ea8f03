//! A stretch divided between a fork and a join: shares by water-filling (what each node gets is done at the same level,
//! the quickest lanes served first, as is best for divisible loads: Bharadwaj, Ghose, Mani and Robertazzi, "Scheduling
//! divisible loads in parallel and distributed systems", 1996), and moved about while that helps; or all ways are tried,
//! if asked to.

use super::enumerate::{HandOut, try_all};
use super::lanes::Lane;
use super::search::{Ends, Keep};
use super::{Division, Part, SHARES_MAX, Share, borders};
use crate::plan::costs::Costs;
use crate::plan::goal::ROUNDING;
use crate::plan::price::StageShape;
use crate::plan::problem::Problem;

/// Rounds of moving shares about.
const ROUNDS_MAX: usize = 8;
/// Halvings of the interval that the level is in; moves do the rest.
const HALVINGS: usize = 14;
/// Guesses by proportion at what is done by a level, before halving.
const GUESSES: u32 = 4;
/// Shares that are so many times over what is of interest are not moved about: that saves less.
const HOPE: f64 = 1.15;
/// What takes nothing at all counts as this much, so that it may be divided by.
const UNIT_MS_MIN: f64 = 1e-15;

/// What a part of a plan is that divides a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By its place among a model's strips.
    Rows(usize),
    Items,
}

/// Units on a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    member: usize,
    units: u32,
}

/// What shares of a stretch take on each member.
pub(super) struct Shares<'a> {
    problem: &'a Problem,
    costs: &'a Costs<'a>,
    kind: Kind,
    division: Division<'a>,
    cut_bytes: (u64, u64),
    /// What a share takes however small, and what all units take beside it; infinite where the stretch does not fit.
    run_ms: Vec<(f64, f64)>,
    /// `[from][to]`; none if there is no link.
    inputs: Vec<Option<Lane>>,
    outputs: Vec<Option<Lane>>,
}

/// What a member does with shares, by the unit: never less than it takes.
#[derive(Clone, Copy)]
struct Rate {
    member: usize,
    fixed_ms: f64,
    /// Of the fork's way out.
    out_ms: f64,
    unit_ms: f64,
}

impl<'a> Shares<'a> {
    pub(super) fn new(
        problem: &'a Problem,
        kind: Kind,
        division: Division<'a>,
        costs: &'a Costs<'a>,
    ) -> Self {
        let run_ms = |member: usize| {
            let (first, end) = (usize::from(division.first), usize::from(division.end));
            let stage = StageShape { node: costs.node(member), first: division.first, end: division.end };
            match costs.run_ms(member, first, end).is_finite() {
                true => problem.divided_ms(stage),
                false => (f64::INFINITY, f64::INFINITY),
            }
        };
        let cut_bytes = |cut: u16| problem.cut_bytes[usize::from(cut)];
        Self {
            problem,
            costs,
            kind,
            division,
            cut_bytes: (cut_bytes(division.first), cut_bytes(division.end)),
            run_ms: (0..costs.member_count()).map(run_ms).collect(),
            inputs: vec![],
            outputs: vec![],
        }
    }

    /// With lanes between all members, which the rest but [`Self::runs_least_ms`] needs.
    pub(super) fn connected(self) -> Self {
        let lanes = |cut: u16| {
            let members = || 0..self.costs.member_count();
            let pairs = members().flat_map(|from| members().map(move |to| (from, to)));
            let node = |member: usize| self.costs.node(member);
            pairs.map(|(from, to)| Lane::new(self.problem, node(from), node(to), cut).ok()).collect()
        };
        let (inputs, outputs) = (lanes(self.division.first), lanes(self.division.end));
        Self { inputs, outputs, ..self }
    }

    /// No shares take less between two members.
    pub(super) fn least_ms(&self, ends: Ends) -> f64 {
        self.level_ms(self.rates(ends)).0
    }

    /// No shares take less, whoever forks and joins: by runs alone.
    pub(super) fn runs_least_ms(&self) -> f64 {
        let rate = |(member, (base_ms, whole_ms)): (usize, &(f64, f64))| Rate {
            member,
            fixed_ms: base_ms + self.division.halo_ms(self.costs.node(member), 1),
            out_ms: 0.0,
            unit_ms: whole_ms / f64::from(self.division.units),
        };
        let rates: Vec<Rate> = self.run_ms.iter().enumerate().map(rate).collect();
        self.level_ms(rates).0
    }

    /// Tells good shares, or, as long as there is work left, all that may matter.
    pub(super) fn arrange(&self, ends: Ends, work_left: Option<&mut usize>, keep: &mut dyn Keep) {
        let (_, rates) = self.level_ms(self.rates(ends));
        let filled = self.filled(ends, rates).into_iter();
        let timed = filled.map(|placed| (self.join_ms(ends, &placed), placed));
        if let Some((joined_ms, placed)) = timed.min_by(|one, other| one.0.total_cmp(&other.0))
            && joined_ms < keep.below_ms() * HOPE
        {
            self.tell(ends, &self.moved_about(ends, placed), keep);
        }
        if let Some(work_left) = work_left {
            try_all(self, ends, &mut vec![], work_left, keep);
        }
    }

    fn input(&self, ends: Ends, member: usize) -> Option<&Lane> {
        self.inputs[ends.fork * self.run_ms.len() + member].as_ref()
    }

    fn output(&self, ends: Ends, member: usize) -> Option<&Lane> {
        self.outputs[member * self.run_ms.len() + ends.join].as_ref()
    }

    /// Of all members that can take shares.
    fn rates(&self, ends: Ends) -> Vec<Rate> {
        let units = f64::from(self.division.units);
        let (in_bytes, out_bytes) = (self.cut_bytes.0 as f64 / units, self.cut_bytes.1 as f64 / units);
        let halo_bytes = self.division.halo_bytes as f64;
        let rate = |(member, (base_ms, whole_ms)): (usize, &(f64, f64))| {
            let (input_ms, in_out_ms, in_ms) = self.input(ends, member)?.least();
            let (output_ms, _, out_ms) = self.output(ends, member)?.least();
            let halo_ms = self.division.halo_ms(self.costs.node(member), 1) + halo_bytes * in_ms;
            Some(Rate {
                member,
                fixed_ms: base_ms + input_ms + output_ms + halo_ms,
                out_ms: in_bytes * in_out_ms,
                unit_ms: whole_ms / units + in_bytes * in_ms + out_bytes * out_ms,
            })
        };
        self.run_ms.iter().enumerate().filter_map(rate).collect()
    }

    /// When all units can be done if no share waits for another; and who has some then, who has most first.
    fn level_ms(&self, mut rates: Vec<Rate>) -> (f64, Vec<Rate>) {
        rates.retain(|rate| rate.fixed_ms.is_finite() && rate.unit_ms.is_finite());
        rates.sort_by(|one, other| one.fixed_ms.total_cmp(&other.fixed_ms));
        // So many units by a time is a line for each member, from what is fixed for it on.
        let units = f64::from(self.division.units);
        let (mut slope, mut before, mut level_ms, mut used) = (0.0, 0.0, f64::INFINITY, 0);
        for rate in &rates {
            if rate.fixed_ms >= level_ms {
                break;
            }
            let unit_ms = rate.unit_ms.max(UNIT_MS_MIN);
            (slope, before) = (slope + 1.0 / unit_ms, before + rate.fixed_ms / unit_ms);
            level_ms = (units + before) / slope;
            used += 1;
        }
        rates.truncate(used);
        let share = |rate: &Rate| (level_ms - rate.fixed_ms) / rate.unit_ms.max(UNIT_MS_MIN);
        rates.sort_by(|one, other| share(other).total_cmp(&share(one)));
        (level_ms, rates)
    }

    /// Shares by water-filling, of those that would have most: the quickest lanes served first, and the quickest
    /// machines.
    fn filled(&self, ends: Ends, mut rates: Vec<Rate>) -> [Vec<Placed>; 2] {
        rates.truncate(SHARES_MAX);
        let by = |key: &dyn Fn(&Rate) -> f64| {
            let mut sorted = rates.clone();
            sorted.sort_by(|one, other| key(one).total_cmp(&key(other)));
            self.fill(ends, sorted.iter().map(|rate| rate.member).collect())
        };
        [by(&|rate| rate.out_ms), by(&|rate| rate.unit_ms)]
    }

    /// The most units that these members do in this order by about the least level at which they do all; those left out
    /// that have none then.
    fn fill(&self, ends: Ends, mut order: Vec<usize>) -> Vec<Placed> {
        while !order.is_empty() {
            let rates = self.rates(ends).into_iter().filter(|rate| order.contains(&rate.member)).collect();
            let mut low_ms = self.level_ms(rates).0;
            let mut high_ms = low_ms;
            let mut filled = self.by_level(ends, &order, high_ms);
            while filled.is_none() && high_ms < f64::MAX / 4.0 {
                (low_ms, high_ms) = (high_ms, high_ms * 1.5 + f64::MIN_POSITIVE);
                filled = self.by_level(ends, &order, high_ms);
            }
            for _ in 0..HALVINGS {
                let middle_ms = f64::midpoint(low_ms, high_ms);
                match self.by_level(ends, &order, middle_ms) {
                    Some(placed) => (high_ms, filled) = (middle_ms, Some(placed)),
                    None => low_ms = middle_ms,
                }
            }
            let Some(placed) = filled else { return vec![] };
            if placed.iter().all(|placed| placed.units > 0) {
                return placed;
            }
            // Without these, the others have fewer borders.
            order = placed.iter().filter(|placed| placed.units > 0).map(|placed| placed.member).collect();
        }
        vec![]
    }

    /// What each does in this order by a level, all units together; none if they cannot.
    fn by_level(&self, ends: Ends, order: &[usize], level_ms: f64) -> Option<Vec<Placed>> {
        let (mut left, mut out_ms, mut placed) = (self.division.units, 0.0, Vec::with_capacity(order.len()));
        for (place, member) in order.iter().enumerate() {
            let borders = borders(place, order.len());
            let done = |units: u32| self.done_ms(ends, Placed { member: *member, units }, borders, out_ms);
            let units = if left == 0 { 0 } else { most(left, level_ms, |units| done(units).0) };
            if units > 0 {
                out_ms = done(units).1;
            }
            left -= units;
            placed.push(Placed { member: *member, units });
        }
        (left == 0).then_some(placed)
    }

    /// When a share is done that is served after so much of the fork's way out, its output at the join, if it is not in
    /// anyone's way; and how much of the fork's way out is taken then.
    fn done_ms(&self, ends: Ends, placed: Placed, borders: u64, out_ms: f64) -> (f64, f64) {
        let never = (f64::INFINITY, f64::INFINITY);
        let Some((arrived_ms, out_ms)) = self.arrived_ms(ends, placed, borders, out_ms) else {
            return never;
        };
        let Some(output) = self.output(ends, placed.member) else { return never };
        let output = output.moved(self.division.bytes(self.cut_bytes.1, placed.units));
        (arrived_ms + self.takes_ms(placed, borders) + output.out_ms + output.in_ms, out_ms)
    }

    fn arrived_ms(&self, ends: Ends, placed: Placed, borders: u64, out_ms: f64) -> Option<(f64, f64)> {
        if placed.member == ends.fork {
            return Some((0.0, out_ms));
        }
        let bytes = self.division.in_bytes(self.cut_bytes.0, placed.units, borders);
        let input = self.input(ends, placed.member)?.moved(bytes);
        let out_ms = out_ms + input.out_ms;
        Some((out_ms + input.in_ms, out_ms))
    }

    fn takes_ms(&self, placed: Placed, borders: u64) -> f64 {
        let (base_ms, whole_ms) = self.run_ms[placed.member];
        let part = f64::from(placed.units) / f64::from(self.division.units);
        base_ms + whole_ms * part + self.division.halo_ms(self.costs.node(placed.member), borders)
    }

    /// Leaves a node out, serves two in each other's turn, or moves units between two, while the join is sooner for it.
    fn moved_about(&self, ends: Ends, mut placed: Vec<Placed>) -> Vec<Placed> {
        let mut best_ms = self.join_ms(ends, &placed);
        for _ in 0..ROUNDS_MAX {
            let before_ms = best_ms;
            let mut keep_if_better = |changed: Vec<Placed>, placed: &mut Vec<Placed>| {
                let joined_ms = self.join_ms(ends, &changed);
                let is_better = changed.len() > 1 && joined_ms < best_ms * (1.0 - ROUNDING);
                if is_better {
                    (best_ms, *placed) = (joined_ms, changed);
                }
                is_better
            };
            let members = |placed: &[Placed]| placed.iter().map(|placed| placed.member).collect::<Vec<_>>();
            // Who does least is missed least.
            while let Some(least) = (0..placed.len()).min_by_key(|index| placed[*index].units) {
                let mut without = members(&placed);
                without.remove(least);
                if without.len() < 2 || !keep_if_better(self.fill(ends, without), &mut placed) {
                    break;
                }
            }
            for index in 1..placed.len() {
                let mut swapped = members(&placed);
                swapped.swap(index - 1, index);
                let filled = self.fill(ends, swapped);
                // A swap may leave others out.
                if filled.len() == placed.len() {
                    keep_if_better(filled, &mut placed);
                }
            }
            for (from, to) in pairs(placed.len()) {
                let mut step = (placed[from].units / 4).max(1);
                while step > 0 {
                    let mut changed = placed.clone();
                    if changed[from].units > step {
                        changed[from].units -= step;
                        changed[to].units += step;
                        if keep_if_better(changed, &mut placed) {
                            continue;
                        }
                    }
                    step /= 2;
                }
            }
            if best_ms >= before_ms {
                break;
            }
        }
        placed
    }
}

impl HandOut for Shares<'_> {
    type Placed = Placed;

    fn next(&self, placed: &[Placed]) -> Vec<Placed> {
        let left = self.division.units - placed.iter().map(|placed| placed.units).sum::<u32>();
        let is_free = |member: &usize| {
            self.run_ms[*member].0.is_finite() && !placed.iter().any(|before| before.member == *member)
        };
        let with_all = |member: usize| (1..=left).map(move |units| Placed { member, units });
        let members = if placed.len() < SHARES_MAX { self.costs.member_count() } else { 0 };
        (0..members).filter(is_free).flat_map(with_all).collect()
    }

    /// From the fork's input to the join's of all shares in their order: as [`Problem::price_forked`].
    fn join_ms(&self, ends: Ends, placed: &[Placed]) -> f64 {
        let (mut out_ms, mut joined_ms, mut of_fork_ms): (f64, f64, Option<(f64, Placed)>) = (0.0, 0.0, None);
        for (place, placed_here) in placed.iter().enumerate() {
            let borders = borders(place, placed.len());
            if placed_here.member == ends.fork && ends.fork != ends.join {
                of_fork_ms = Some((self.takes_ms(*placed_here, borders), *placed_here));
                continue;
            }
            let (done_ms, taken_ms) = self.done_ms(ends, *placed_here, borders, out_ms);
            (joined_ms, out_ms) = (joined_ms.max(done_ms), taken_ms);
        }
        // The fork's own goes out behind what it sends to the others.
        let Some((finished_ms, placed)) = of_fork_ms else { return joined_ms };
        let Some(output) = self.output(ends, placed.member) else { return f64::INFINITY };
        let output = output.moved(self.division.bytes(self.cut_bytes.1, placed.units));
        joined_ms.max(finished_ms.max(out_ms) + output.out_ms + output.in_ms)
    }

    fn tell(&self, ends: Ends, placed: &[Placed], keep: &mut dyn Keep) {
        let units: u32 = placed.iter().map(|placed| placed.units).sum();
        if placed.len() < 2 || units < self.division.units {
            return;
        }
        let joined_ms = self.join_ms(ends, placed);
        if joined_ms < keep.below_ms() {
            let share = |placed: &Placed| Share { node: self.costs.node(placed.member), units: placed.units };
            let shares = placed.iter().map(share).collect();
            let (first, end) = (self.division.first, self.division.end);
            let part = match self.kind {
                Kind::Rows(strips) => Part::Rows { strips, shares },
                Kind::Items => Part::Items { first, end, shares },
            };
            keep.take(joined_ms, part);
        }
    }
}

/// The most units, of so many at least one, that are done by a level, as times grow with them nearly in proportion.
fn most(units_max: u32, level_ms: f64, done_ms: impl Fn(u32) -> f64) -> u32 {
    let mut above = (units_max, done_ms(units_max));
    if above.1 <= level_ms {
        return units_max;
    }
    let mut below = (1, done_ms(1));
    if below.1 > level_ms {
        return 0;
    }
    for tried in 0.. {
        let between = above.0 - below.0;
        if between < 2 {
            break;
        }
        let share = (level_ms - below.1) / (above.1 - below.1);
        let guess = if tried < GUESSES { (share * f64::from(between)) as u32 } else { between / 2 };
        let units = below.0 + guess.clamp(1, between - 1);
        let done_ms = done_ms(units);
        if done_ms <= level_ms { below = (units, done_ms) } else { above = (units, done_ms) }
    }
    below.0
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to)
}
