//! Where a plan may fork and join, and the least that each could be.

use super::branches::Branches;
use super::search::{Ends, Keep};
use super::shares::{Kind, Shares};
use super::tables::Tables;
use super::{Division, Forks};
use crate::plan::costs::Costs;
use crate::plan::problem::Problem;
use crate::plan::through;

/// Pairs of fork and join that heuristics look at for a region or strips; where there are many of these, so many for all of
/// them, but a few for each.
const PAIRS_MAX: usize = 24;
const PAIRS_OF_ALL_MAX: usize = 192;
const PAIRS_MIN: usize = 4;
/// Stretches that a batch is divided over, the most promising, and pairs looked at for each.
const STRETCHES_MAX: usize = 12;
const PAIRS_OF_STRETCH_MAX: usize = 4;

/// What lies between a fork and its join.
pub(super) enum Fan<'a> {
    Branches(Branches<'a>),
    Shares(Shares<'a>),
}

/// A fork that a plan may have.
pub(super) struct Candidate<'a> {
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) fan: Fan<'a>,
    /// Those that are looked at, the most promising first.
    pub(super) pairs: Vec<Ends>,
    /// No fork at the first member and join at the second takes less.
    least_ms: Vec<f64>,
    members: usize,
}

impl Candidate<'_> {
    pub(super) fn least_ms(&self, ends: Ends) -> f64 {
        self.least_ms[ends.fork * self.members + ends.join]
    }

    pub(super) fn arrange(&self, ends: Ends, work_left: Option<&mut usize>, keep: &mut dyn Keep) {
        match &self.fan {
            Fan::Branches(branches) => branches.arrange(ends, work_left, keep),
            Fan::Shares(shares) => shares.arrange(ends, work_left, keep),
        }
    }

    /// All that there may be, whether or not they are looked at.
    pub(super) fn all_ends(&self, blocks: usize) -> impl Iterator<Item = Ends> + use<> {
        ends(self.members, (self.first, self.end), blocks)
    }
}

/// The origin forks what begins a model, and joins what ends it.
fn ends(members: usize, (first, end): (usize, usize), blocks: usize) -> impl Iterator<Item = Ends> {
    let forks = if first == 0 { 1 } else { members };
    let joins = if end == blocks { 1 } else { members };
    (0..forks).flat_map(move |fork| (0..joins).map(move |join| Ends { fork, join }))
}

/// All forks that a plan may have, in the order of their first blocks; of those without number, the most promising, unless
/// all are asked for.
pub(super) fn candidates<'a>(
    problem: &'a Problem,
    forks: &'a Forks,
    costs: &'a Costs<'a>,
    tables: &Tables,
    are_all: bool,
) -> Vec<Candidate<'a>> {
    let blocks = problem.block_count();
    let may_fork = |first: usize, end: usize| {
        !((first == 0 && problem.force_first) || (end == blocks && problem.force_last))
    };
    let most = |count: usize| if are_all { usize::MAX } else { count };
    let each = PAIRS_OF_ALL_MAX / (forks.regions.len() + forks.strips.len()).max(1);
    let pairs_max = most(each.clamp(PAIRS_MIN, PAIRS_MAX));
    let mut found = vec![];
    for (place, region) in forks.regions.iter().enumerate().filter(|(_, region)| region.is_valid(blocks)) {
        let (first, end) = region.blocks();
        if may_fork(first.into(), end.into()) {
            let fan = Fan::Branches(Branches::new(problem, place, region, costs));
            found.push(candidate(fan, (first.into(), end.into()), tables, costs, pairs_max));
        }
    }
    for (place, strips) in forks.strips.iter().enumerate() {
        let division = forks.of_rows(place).filter(|_| strips.is_valid(blocks, problem.nodes.len()));
        if let Some(division) =
            division.filter(|division| may_fork(division.first.into(), division.end.into()))
        {
            let shares = Shares::new(problem, Kind::Rows(place), division, costs).connected();
            let ends = (division.first.into(), division.end.into());
            found.push(candidate(Fan::Shares(shares), ends, tables, costs, pairs_max));
        }
    }
    let cuts = if are_all { (0..=blocks).collect() } else { through::cuts(problem) };
    let mut stretches = vec![];
    for (place, first) in cuts.iter().enumerate().filter(|_| forks.items > 1) {
        for end in cuts[place + 1..].iter().filter(|end| may_fork(*first, **end)) {
            let division: Division<'a> = forks.of_items(*first as u16, *end as u16);
            let shares = Shares::new(problem, Kind::Items, division, costs);
            let outside_ms = tables.before_least_ms(*first) + tables.after_least_ms(*end);
            stretches.push((outside_ms + shares.runs_least_ms(), (*first, *end), shares));
        }
    }
    stretches.retain(|(promise_ms, ..)| promise_ms.is_finite());
    stretches.sort_by(|one, other| one.0.total_cmp(&other.0));
    stretches.truncate(most(STRETCHES_MAX));
    found.extend(stretches.into_iter().map(|(_, ends, shares)| {
        candidate(Fan::Shares(shares.connected()), ends, tables, costs, most(PAIRS_OF_STRETCH_MAX))
    }));
    found.sort_by_key(|candidate| candidate.first);
    found
}

fn candidate<'a>(
    fan: Fan<'a>,
    (first, end): (usize, usize),
    tables: &Tables,
    costs: &Costs,
    pairs_max: usize,
) -> Candidate<'a> {
    let (members, blocks) = (costs.member_count(), costs.block_count());
    let least_ms = |ends: Ends| match &fan {
        Fan::Branches(branches) => branches.least_ms(ends),
        Fan::Shares(shares) => shares.least_ms(ends),
    };
    let mut all_ms = vec![f64::INFINITY; members * members];
    let mut promised: Vec<(f64, Ends)> = vec![];
    for ends in ends(members, (first, end), blocks) {
        let fork_ms = least_ms(ends);
        all_ms[ends.fork * members + ends.join] = fork_ms;
        let after_ms = if end == blocks { 0.0 } else { tables.after_ms[tables.index(end, ends.join)] };
        let outside_ms = tables.before_ms[tables.index(first, ends.fork)] + after_ms;
        promised.push((outside_ms + fork_ms, ends));
    }
    promised.retain(|(promise_ms, _)| promise_ms.is_finite());
    promised.sort_by(|one, other| one.0.total_cmp(&other.0));
    promised.truncate(pairs_max);
    let pairs = promised.into_iter().map(|(_, ends)| ends).collect();
    Candidate { first, end, fan, pairs, least_ms: all_ms, members }
}
