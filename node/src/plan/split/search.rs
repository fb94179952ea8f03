//! The best plan with a fork: for each pair of fork and join, in order of what it could be at best, branches are handed
//! out by two list heuristics (Topcuoglu, Hariri and Wu, "Performance-effective and low-complexity task scheduling for
//! heterogeneous computing", IEEE TPDS 13(3), 2002: the longest first, each to where it is done first) and moved about
//! while that helps; or all ways are tried, if asked to.

use super::tables::Tables;
use super::{BRANCHES_MAX, PricedSplit, Region, SplitShape};
use crate::plan::candidates::choose;
use crate::plan::costs::Costs;
use crate::plan::goal::{Method, ROUNDING};
use crate::plan::price::{Infeasible, StageShape};
use crate::plan::problem::Problem;
use crate::plan::ranges::Ranges;

/// Members that branches are handed to, the most promising: pairs of them are tried as fork and join.
const MEMBERS_MAX: usize = 16;
/// Pairs looked at by the heuristics.
const PAIRS_MAX: usize = 24;
/// Rounds of moving branches about.
const ROUNDS_MAX: usize = 8;

/// The best plan found with a fork in one of a model's regions.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Which of the regions.
    pub region: usize,
    /// The plan.
    pub priced: PricedSplit,
    /// No plan with one fork in any of the regions takes less, over the nodes looked at.
    pub bound_ms: f64,
}

/// The plan with one fork that takes least, if there is any; of [`Method::Greedy`], over the most promising nodes.
/// `expansions_max` bounds how many partial schedules [`Method::Exact`] looks at.
pub fn best_split(
    problem: &Problem,
    regions: &[Region],
    method: Method,
    expansions_max: usize,
) -> Option<Split> {
    let is_exact = method == Method::Exact;
    let ranges = Ranges::new(problem);
    let members = choose(problem, &ranges, if is_exact { usize::MAX } else { MEMBERS_MAX });
    let costs = Costs::new(problem, &ranges, members, f64::INFINITY);
    let tables = Tables::new(&costs);
    let mut best: Option<Split> = None;
    let mut bound_ms = f64::INFINITY;
    for (index, region) in
        regions.iter().enumerate().filter(|(_, region)| region.is_valid(problem.block_count()))
    {
        let mut search =
            Search::new(problem, region, &costs, &tables, if is_exact { expansions_max } else { 0 });
        let found = search.run(best.as_ref().map_or(f64::INFINITY, |best| best.priced.latency_ms));
        bound_ms = bound_ms.min(search.bound_ms);
        if let Some(priced) = found {
            best = Some(Split { region: index, priced, bound_ms: 0.0 });
        }
    }
    best.map(|best| Split { bound_ms: bound_ms.min(best.priced.latency_ms), ..best })
}

/// What a tensor's way takes of the sender's way out, and after that.
#[derive(Clone, Copy)]
struct Way {
    out_ms: f64,
    in_ms: f64,
}

/// A branch on a member.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Placed {
    branch: usize,
    member: usize,
}

struct Search<'a> {
    problem: &'a Problem,
    region: &'a Region,
    costs: &'a Costs<'a>,
    tables: &'a Tables,
    members: usize,
    /// `[branch][member]`
    run_ms: Vec<f64>,
    /// `[branch][from][to]`: of its input, and of its output.
    inputs: Vec<Way>,
    outputs: Vec<Way>,
    work_left: usize,
    is_exact: bool,
    is_coupled: bool,
    bound_ms: f64,
}

/// Who forks and who joins.
#[derive(Clone, Copy)]
struct Pair {
    fork: usize,
    join: usize,
    /// Up to the fork, and from the join on.
    outside_ms: f64,
    /// Of the whole plan.
    least_ms: f64,
}

impl<'a> Search<'a> {
    fn new(
        problem: &'a Problem,
        region: &'a Region,
        costs: &'a Costs<'a>,
        tables: &'a Tables,
        work_max: usize,
    ) -> Self {
        let members = costs.member_count();
        let (first, end) = region.blocks();
        let way = |from: usize, to: usize, cut: u16, bytes: u64| {
            let moved = problem.moved(costs.node(from), costs.node(to), cut, Some(bytes));
            moved.map_or(Way { out_ms: f64::INFINITY, in_ms: f64::INFINITY }, |moved| Way {
                out_ms: moved.out_ms,
                in_ms: moved.in_ms,
            })
        };
        let pairs = || (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
        let (mut run_ms, mut inputs, mut outputs) = (vec![], vec![], vec![]);
        for branch in &region.branches {
            let runs =
                (0..members).map(|member| costs.run_ms(member, branch.first.into(), branch.end.into()));
            run_ms.extend(runs);
            inputs.extend(pairs().map(|(from, to)| way(from, to, first, branch.in_bytes)));
            outputs.extend(pairs().map(|(from, to)| way(from, to, end, branch.out_bytes)));
        }
        Self {
            problem,
            region,
            costs,
            tables,
            members,
            run_ms,
            inputs,
            outputs,
            work_left: work_max,
            is_exact: work_max > 0,
            is_coupled: false,
            bound_ms: f64::INFINITY,
        }
    }

    fn branches(&self) -> usize {
        self.region.branches.len()
    }

    /// The best plan below a latency; and sets the bound.
    fn run(&mut self, mut below_ms: f64) -> Option<PricedSplit> {
        let mut best = None;
        let pairs = self.pairs();
        let most = if self.is_exact { usize::MAX } else { PAIRS_MAX };
        self.bound_ms = pairs.first().map_or(f64::INFINITY, |pair| pair.least_ms);
        let mut are_all = self.is_exact;
        for pair in pairs.into_iter().take(most) {
            if pair.least_ms >= below_ms {
                break;
            }
            for placed in self.handed_out(pair) {
                let placed = self.moved_about(pair, placed);
                self.take(pair, &placed, &mut best, &mut below_ms);
            }
            if self.is_exact {
                let mut placed = vec![];
                self.try_all(pair, &mut placed, &mut best, &mut below_ms);
                are_all &= self.work_left > 0;
            }
        }
        if are_all && !self.is_coupled {
            self.bound_ms = below_ms;
        }
        best
    }

    fn take(&mut self, pair: Pair, placed: &[Placed], best: &mut Option<PricedSplit>, below_ms: &mut f64) {
        if pair.outside_ms + self.join_ms(pair, placed) >= *below_ms {
            return;
        }
        let priced = self.problem.price_split(self.region, &self.shape(pair, placed));
        // Another way to the same fork might fit.
        self.is_coupled |= matches!(priced, Err(Infeasible::Memory { .. }));
        if let Ok(priced) = priced
            && priced.latency_ms < *below_ms * (1.0 - ROUNDING)
        {
            *below_ms = priced.latency_ms;
            *best = Some(priced);
        }
    }

    /// Forks and joins that may be, in order of the least that a plan with them takes.
    fn pairs(&self) -> Vec<Pair> {
        let (first, end) = self.region.blocks();
        let (first, end) = (usize::from(first), usize::from(end));
        let blocks = self.costs.block_count();
        let joins = if end == blocks { 1 } else { self.members };
        let mut pairs = vec![];
        for fork in 0..if first == 0 { 1 } else { self.members } {
            let before_ms = self.tables.before_ms[self.tables.index(first, fork)];
            for join in (0..joins).filter(|_| before_ms.is_finite()) {
                let after_ms =
                    if end == blocks { 0.0 } else { self.tables.after_ms[self.tables.index(end, join)] };
                let outside_ms = before_ms + after_ms;
                if outside_ms.is_finite() {
                    let alone = (0..self.branches()).map(|branch| self.alone_ms(branch, fork, join));
                    let least_ms = outside_ms + alone.fold(0.0, f64::max);
                    pairs.push(Pair { fork, join, outside_ms, least_ms });
                }
            }
        }
        pairs.retain(|pair| pair.least_ms.is_finite());
        pairs.sort_by(|one, other| one.least_ms.total_cmp(&other.least_ms));
        pairs
    }

    /// The least that a branch takes if nothing else is in its way.
    fn alone_ms(&self, branch: usize, fork: usize, join: usize) -> f64 {
        let on = |member: usize| {
            let (input, output) = (self.input(branch, fork, member), self.output(branch, member, join));
            let moved_ms = input.out_ms + input.in_ms + output.out_ms + output.in_ms;
            self.run_ms[branch * self.members + member] + moved_ms
        };
        (0..self.members).map(on).fold(f64::INFINITY, f64::min)
    }

    fn input(&self, branch: usize, from: usize, to: usize) -> Way {
        self.inputs[(branch * self.members + from) * self.members + to]
    }

    fn output(&self, branch: usize, from: usize, to: usize) -> Way {
        self.outputs[(branch * self.members + from) * self.members + to]
    }

    /// From the fork's input to the join's of the branches placed so far, in their order: as [`Problem::price_split`].
    fn join_ms(&self, pair: Pair, placed: &[Placed]) -> f64 {
        let mut finished_ms = [0.0; BRANCHES_MAX];
        let mut fork_out_ms = 0.0;
        for (index, Placed { branch, member }) in placed.iter().enumerate() {
            let input = self.input(*branch, pair.fork, *member);
            fork_out_ms += input.out_ms;
            let arrived_ms = if *member == pair.fork { 0.0 } else { fork_out_ms + input.in_ms };
            let free_ms = placed[..index].iter().rposition(|before| before.member == *member);
            let free_ms = free_ms.map_or(0.0, |before| finished_ms[before]);
            finished_ms[index] = arrived_ms.max(free_ms) + self.run_ms[branch * self.members + member];
        }
        let mut joined_ms: f64 = 0.0;
        let mut out_free_ms = [0.0; BRANCHES_MAX];
        for (index, Placed { branch, member }) in placed.iter().enumerate() {
            let output = self.output(*branch, *member, pair.join);
            if *member == pair.join {
                joined_ms = joined_ms.max(finished_ms[index]);
                continue;
            }
            let before = placed[..index].iter().rposition(|before| before.member == *member);
            let begun_ms = if *member == pair.fork { fork_out_ms } else { 0.0 };
            let free_ms = before.map_or(begun_ms, |before| out_free_ms[before]);
            out_free_ms[index] = finished_ms[index].max(free_ms) + output.out_ms;
            joined_ms = joined_ms.max(out_free_ms[index] + output.in_ms);
        }
        joined_ms
    }

    /// Branches handed out by two lists: those that run longest first, and those that take longest in all.
    fn handed_out(&self, pair: Pair) -> [Vec<Placed>; 2] {
        let runs_ms = |branch: usize| {
            let runs = &self.run_ms[branch * self.members..][..self.members];
            runs.iter().copied().fold(f64::INFINITY, f64::min)
        };
        let by = |key: &dyn Fn(usize) -> f64| {
            let mut list: Vec<usize> = (0..self.branches()).collect();
            list.sort_by(|one, other| key(*other).total_cmp(&key(*one)));
            let mut placed = vec![];
            for branch in list {
                let joined = |member: usize| {
                    let with = [&placed[..], &[Placed { branch, member }]].concat();
                    (self.join_ms(pair, &with), member)
                };
                let first =
                    |one: (f64, usize), other: (f64, usize)| if other.0 < one.0 { other } else { one };
                let (_, member) = (0..self.members).map(joined).fold((f64::INFINITY, 0), first);
                placed.push(Placed { branch, member });
            }
            placed
        };
        [by(&runs_ms), by(&|branch| self.alone_ms(branch, pair.fork, pair.join))]
    }

    /// Moves one branch to another node, or two into each other's place, while the join is sooner for it.
    fn moved_about(&self, pair: Pair, mut placed: Vec<Placed>) -> Vec<Placed> {
        let mut best_ms = self.join_ms(pair, &placed);
        for _ in 0..ROUNDS_MAX {
            let before_ms = best_ms;
            let mut keep_if_better = |changed: Vec<Placed>, placed: &mut Vec<Placed>| {
                let joined_ms = self.join_ms(pair, &changed);
                if joined_ms < best_ms * (1.0 - ROUNDING) {
                    (best_ms, *placed) = (joined_ms, changed);
                }
            };
            for index in 0..placed.len() {
                for member in 0..self.members {
                    let mut changed = placed.clone();
                    changed[index].member = member;
                    keep_if_better(changed, &mut placed);
                }
                for other in 0..index {
                    let mut swapped = placed.clone();
                    swapped.swap(index, other);
                    keep_if_better(swapped.clone(), &mut placed);
                    let (one, two) = (swapped[index].member, swapped[other].member);
                    (swapped[index].member, swapped[other].member) = (two, one);
                    keep_if_better(swapped, &mut placed);
                }
            }
            if best_ms >= before_ms {
                break;
            }
        }
        placed
    }

    /// Every order and every place of the branches that are left.
    fn try_all(
        &mut self,
        pair: Pair,
        placed: &mut Vec<Placed>,
        best: &mut Option<PricedSplit>,
        below_ms: &mut f64,
    ) {
        if placed.len() == self.branches() {
            self.take(pair, placed, best, below_ms);
            return;
        }
        for branch in 0..self.branches() {
            if placed.iter().any(|before| before.branch == branch) {
                continue;
            }
            for member in 0..self.members {
                if self.work_left == 0 {
                    return;
                }
                self.work_left -= 1;
                placed.push(Placed { branch, member });
                // Those to come make nothing of it sooner.
                if pair.outside_ms + self.join_ms(pair, placed) < *below_ms {
                    self.try_all(pair, placed, best, below_ms);
                }
                placed.pop();
            }
        }
    }

    fn shape(&self, pair: Pair, placed: &[Placed]) -> SplitShape {
        let (first, end) = self.region.blocks();
        let stage = |placed: &Placed| {
            let branch = self.region.branches[placed.branch];
            StageShape { node: self.costs.node(placed.member), first: branch.first, end: branch.end }
        };
        SplitShape {
            before: self.tables.stages_before(self.costs, first.into(), pair.fork),
            branches: placed.iter().map(stage).collect(),
            after: self.tables.stages_after(self.costs, end.into(), pair.join),
        }
    }
}
