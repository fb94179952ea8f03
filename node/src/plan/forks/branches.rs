//! Branches handed out between a fork and a join, by two list heuristics (Topcuoglu, Hariri and Wu,
//! "Performance-effective and low-complexity task scheduling for heterogeneous computing", IEEE TPDS 13(3), 2002: the
//! longest first, each to where it is done first), and moved about while that helps; or all ways are tried, if asked to.

use super::Part;
use super::enumerate::{HandOut, try_all};
use super::lanes::{Lane, Moved};
use super::search::{Ends, Keep};
use crate::plan::costs::{Costs, least_sum};
use crate::plan::goal::ROUNDING;
use crate::plan::price::StageShape;
use crate::plan::problem::Problem;
use crate::plan::split::{BRANCHES_MAX, Region};

/// Rounds of moving branches about.
const ROUNDS_MAX: usize = 8;

const NEVER: Moved = Moved { out_ms: f64::INFINITY, in_ms: f64::INFINITY, bytes: 0 };

/// A branch on a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    branch: usize,
    member: usize,
}

/// A region's branches, and what each takes on each member.
pub(super) struct Branches<'a> {
    place: usize,
    region: &'a Region,
    costs: &'a Costs<'a>,
    members: usize,
    /// `[branch][member]`
    run_ms: Vec<f64>,
    /// `[branch][from][to]`: of its input, and of its output.
    inputs: Vec<Moved>,
    outputs: Vec<Moved>,
    /// `[fork][join]`: of what passes the branches by.
    past: Vec<Moved>,
    /// `[branch][fork][member]`: from the fork's input to the end of the run, if nothing else is in its way.
    done_ms: Vec<f64>,
    /// `[branch][join][member]`: likewise from there to the join.
    home_ms: Vec<f64>,
}

impl<'a> Branches<'a> {
    /// Of one of a model's regions, by its place among them.
    pub(super) fn new(problem: &Problem, place: usize, region: &'a Region, costs: &'a Costs<'a>) -> Self {
        let members = costs.member_count();
        let (first, end) = region.blocks();
        let pairs = || (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
        let lanes = |cut: u16| -> Vec<Option<Lane>> {
            pairs().map(|(from, to)| Lane::new(problem, costs.node(from), costs.node(to), cut).ok()).collect()
        };
        let (in_lanes, out_lanes) = (lanes(first), lanes(end));
        let move_by = |lane: &Option<Lane>, bytes: u64| lane.as_ref().map_or(NEVER, |lane| lane.moved(bytes));
        let (mut run_ms, mut inputs, mut outputs) = (vec![], vec![], vec![]);
        for branch in &region.branches {
            let runs =
                (0..members).map(|member| costs.run_ms(member, branch.first.into(), branch.end.into()));
            run_ms.extend(runs);
            inputs.extend(in_lanes.iter().map(|lane| move_by(lane, branch.in_bytes)));
            outputs.extend(out_lanes.iter().map(|lane| move_by(lane, branch.out_bytes)));
        }
        let past = match region.past_bytes {
            0 => vec![Moved::default(); members * members],
            bytes => out_lanes.iter().map(|lane| move_by(lane, bytes)).collect(),
        };
        let ms = |moved: &Moved| moved.out_ms + moved.in_ms;
        let runs = |index: usize| run_ms[index / (members * members) * members + index % members];
        let done_ms = inputs.iter().enumerate().map(|(index, input)| ms(input) + runs(index)).collect();
        let home = |index: usize| {
            let (rest, member) = (index / members, index % members);
            let (branch, join) = (rest / members, rest % members);
            ms(&outputs[(branch * members + member) * members + join])
        };
        let home_ms = (0..outputs.len()).map(home).collect();
        Self { place, region, costs, members, run_ms, inputs, outputs, past, done_ms, home_ms }
    }

    fn count(&self) -> usize {
        self.region.branches.len()
    }

    /// No way to hand the branches out takes less.
    pub(super) fn least_ms(&self, ends: Ends) -> f64 {
        let past = self.past(ends);
        let of_branches = (0..self.count()).map(|branch| self.alone_ms(branch, ends));
        of_branches.fold(past.out_ms + past.in_ms, f64::max)
    }

    fn past(&self, ends: Ends) -> Moved {
        self.past[ends.fork * self.members + ends.join]
    }

    /// Tells good ways to hand the branches out, or, as long as there is work left, all that may matter.
    pub(super) fn arrange(&self, ends: Ends, work_left: Option<&mut usize>, keep: &mut dyn Keep) {
        for placed in self.handed_out(ends) {
            self.tell(ends, &self.moved_about(ends, placed), keep);
        }
        if let Some(work_left) = work_left {
            try_all(self, ends, &mut vec![], work_left, keep);
        }
    }

    /// The least that a branch takes if nothing else is in its way.
    fn alone_ms(&self, branch: usize, ends: Ends) -> f64 {
        let of = |all_ms: &[f64], end: usize| (branch * self.members + end) * self.members..all_ms.len();
        let done_ms = &self.done_ms[of(&self.done_ms, ends.fork)][..self.members];
        least_sum(done_ms, &self.home_ms[of(&self.home_ms, ends.join)][..self.members])
    }

    fn input(&self, branch: usize, from: usize, to: usize) -> Moved {
        self.inputs[(branch * self.members + from) * self.members + to]
    }

    fn output(&self, branch: usize, from: usize, to: usize) -> Moved {
        self.outputs[(branch * self.members + from) * self.members + to]
    }

    /// Branches handed out by two lists: those that run longest first, and those that take longest in all.
    fn handed_out(&self, ends: Ends) -> [Vec<Placed>; 2] {
        let runs_ms = |branch: usize| {
            let runs = &self.run_ms[branch * self.members..][..self.members];
            runs.iter().copied().fold(f64::INFINITY, f64::min)
        };
        let by = |key: &dyn Fn(usize) -> f64| {
            let mut list: Vec<usize> = (0..self.count()).collect();
            list.sort_by(|one, other| key(*other).total_cmp(&key(*one)));
            let mut placed = vec![];
            for branch in list {
                let joined = |member: usize| {
                    let with = [&placed[..], &[Placed { branch, member }]].concat();
                    (self.join_ms(ends, &with), member)
                };
                let first =
                    |one: (f64, usize), other: (f64, usize)| if other.0 < one.0 { other } else { one };
                let (_, member) = (0..self.members).map(joined).fold((f64::INFINITY, 0), first);
                placed.push(Placed { branch, member });
            }
            placed
        };
        [by(&runs_ms), by(&|branch| self.alone_ms(branch, ends))]
    }

    /// Moves one branch to another node, or two into each other's place, while the join is sooner for it.
    fn moved_about(&self, ends: Ends, mut placed: Vec<Placed>) -> Vec<Placed> {
        let mut best_ms = self.join_ms(ends, &placed);
        for _ in 0..ROUNDS_MAX {
            let before_ms = best_ms;
            let mut keep_if_better = |changed: Vec<Placed>, placed: &mut Vec<Placed>| {
                let joined_ms = self.join_ms(ends, &changed);
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
}

impl HandOut for Branches<'_> {
    type Placed = Placed;

    fn next(&self, placed: &[Placed]) -> Vec<Placed> {
        let is_left = |branch: &usize| !placed.iter().any(|before| before.branch == *branch);
        let on_all = |branch: usize| (0..self.members).map(move |member| Placed { branch, member });
        (0..self.count()).filter(is_left).flat_map(on_all).collect()
    }

    /// From the fork's input to the join's of the branches placed so far, in their order: as
    /// [`Problem::price_forked`].
    fn join_ms(&self, ends: Ends, placed: &[Placed]) -> f64 {
        let mut finished_ms = [0.0; BRANCHES_MAX];
        let mut fork_out_ms = 0.0;
        for (index, Placed { branch, member }) in placed.iter().enumerate() {
            let input = self.input(*branch, ends.fork, *member);
            fork_out_ms += input.out_ms;
            let arrived_ms = if *member == ends.fork { 0.0 } else { fork_out_ms + input.in_ms };
            let free_ms = placed[..index].iter().rposition(|before| before.member == *member);
            let free_ms = free_ms.map_or(0.0, |before| finished_ms[before]);
            finished_ms[index] = arrived_ms.max(free_ms) + self.run_ms[branch * self.members + member];
        }
        let past = self.past(ends);
        fork_out_ms += past.out_ms;
        let is_past = past != Moved::default();
        let mut joined_ms: f64 = if is_past { fork_out_ms + past.in_ms } else { 0.0 };
        let mut out_free_ms = [0.0; BRANCHES_MAX];
        for (index, Placed { branch, member }) in placed.iter().enumerate() {
            let output = self.output(*branch, *member, ends.join);
            if *member == ends.join {
                joined_ms = joined_ms.max(finished_ms[index]);
                continue;
            }
            let before = placed[..index].iter().rposition(|before| before.member == *member);
            let begun_ms = if *member == ends.fork { fork_out_ms } else { 0.0 };
            let free_ms = before.map_or(begun_ms, |before| out_free_ms[before]);
            out_free_ms[index] = finished_ms[index].max(free_ms) + output.out_ms;
            joined_ms = joined_ms.max(out_free_ms[index] + output.in_ms);
        }
        joined_ms
    }

    fn tell(&self, ends: Ends, placed: &[Placed], keep: &mut dyn Keep) {
        if placed.len() < self.count() {
            return;
        }
        let joined_ms = self.join_ms(ends, placed);
        if joined_ms < keep.below_ms() {
            let stage = |placed: &Placed| {
                let branch = self.region.branches[placed.branch];
                StageShape { node: self.costs.node(placed.member), first: branch.first, end: branch.end }
            };
            let branches = placed.iter().map(stage).collect();
            keep.take(joined_ms, Part::Branches { region: self.place, branches });
        }
    }
}
