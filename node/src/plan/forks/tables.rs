//! The least time from the input to each (cut, member), and from there to the result, with the stages between: each
//! run's memory looked at alone.

use super::candidates::Candidate;
use crate::plan::costs::Costs;
use crate::plan::price::StageShape;

const NONE: usize = usize::MAX;

/// Both ways through a problem over some members.
pub(super) struct Tables {
    cuts: usize,
    /// `[cut][member]`: the cut's tensors came to be at the member, by a run or from the beginning.
    pub(super) before_ms: Vec<f64>,
    /// Where the run began that led there, and who sent its input.
    came: Vec<(usize, usize)>,
    /// `[cut][member]`: the member is about to run from the cut on.
    pub(super) after_ms: Vec<f64>,
    /// Where that run ends, and who goes on.
    goes: Vec<(usize, usize)>,
    members: usize,
}

impl Tables {
    pub(super) fn new(costs: &Costs) -> Self {
        let (cuts, members) = (costs.block_count() + 1, costs.member_count());
        let none = || vec![f64::INFINITY; cuts * members];
        let nowhere = || vec![(NONE, NONE); cuts * members];
        let (before_ms, after_ms) = (none(), none());
        let mut tables = Self { cuts, members, before_ms, came: nowhere(), after_ms, goes: nowhere() };
        tables.fill_before(costs);
        tables.fill_after(costs);
        tables
    }

    pub(super) fn index(&self, cut: usize, member: usize) -> usize {
        cut * self.members + member
    }

    /// The least to a cut's tensors at any member.
    pub(super) fn before_least_ms(&self, cut: usize) -> f64 {
        self.row(&self.before_ms, cut).iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The least from a cut on at any member; none behind the last block.
    pub(super) fn after_least_ms(&self, cut: usize) -> f64 {
        let all_ms = self.row(&self.after_ms, cut).iter().copied();
        if cut + 1 == self.cuts { 0.0 } else { all_ms.fold(f64::INFINITY, f64::min) }
    }

    fn row<'a>(&self, table: &'a [f64], cut: usize) -> &'a [f64] {
        &table[cut * self.members..(cut + 1) * self.members]
    }

    /// `[cut][member]`: the least from there on if the member is about to run, and any forks take the least that they
    /// could; the result's way home is part of it.
    pub(super) fn with_forks(&self, costs: &Costs, candidates: &[Candidate]) -> Vec<f64> {
        let end = self.cuts - 1;
        let mut rest_ms = vec![f64::INFINITY; self.cuts * self.members];
        let mut at_ms = vec![f64::INFINITY; self.cuts * self.members];
        for cut in (0..self.cuts).rev() {
            for member in (0..self.members).filter(|member| cut < end && costs.may_start(*member, cut)) {
                let run_to = |end: usize| costs.run_ms(member, cut, end) + at_ms[self.index(end, member)];
                let least_ms = (cut + 1..self.cuts).map(run_to).fold(f64::INFINITY, f64::min);
                rest_ms[self.index(cut, member)] = least_ms;
            }
            for member in 0..self.members {
                let moved = |to: usize| costs.enter_ms(member, to, cut) + rest_ms[self.index(cut, to)];
                at_ms[self.index(cut, member)] = match cut == end {
                    true => costs.result_ms(member),
                    false => (0..self.members).map(moved).fold(f64::INFINITY, f64::min),
                };
            }
            for candidate in candidates.iter().filter(|candidate| candidate.first == cut) {
                for ends in candidate.all_ends(end) {
                    let joined_ms = if candidate.end == end {
                        0.0
                    } else {
                        rest_ms[self.index(candidate.end, ends.join)]
                    };
                    let index = self.index(cut, ends.fork);
                    at_ms[index] = at_ms[index].min(candidate.least_ms(ends) + joined_ms);
                }
            }
        }
        rest_ms
    }

    fn fill_before(&mut self, costs: &Costs) {
        self.before_ms[0] = 0.0;
        for cut in 0..self.cuts - 1 {
            for member in 0..self.members {
                let entered = |from: usize| {
                    (self.before_ms[self.index(cut, from)] + costs.enter_ms(from, member, cut), from)
                };
                let (start_ms, from) = (0..self.members).map(entered).fold((f64::INFINITY, NONE), least);
                if start_ms.is_infinite() {
                    continue;
                }
                for end in cut + 1..self.cuts {
                    let index = self.index(end, member);
                    let end_ms = start_ms + costs.run_ms(member, cut, end);
                    if end_ms < self.before_ms[index] {
                        (self.before_ms[index], self.came[index]) = (end_ms, (cut, from));
                    }
                }
            }
        }
    }

    fn fill_after(&mut self, costs: &Costs) {
        let end = self.cuts - 1;
        let mut at = vec![(f64::INFINITY, NONE); self.cuts * self.members];
        for cut in (0..self.cuts).rev() {
            for member in (0..self.members).filter(|_| cut < end) {
                let index = self.index(cut, member);
                for end in cut + 1..self.cuts {
                    let (rest_ms, next) = at[self.index(end, member)];
                    let start_ms = costs.run_ms(member, cut, end) + rest_ms;
                    if start_ms < self.after_ms[index] && costs.may_start(member, cut) {
                        (self.after_ms[index], self.goes[index]) = (start_ms, (end, next));
                    }
                }
            }
            for member in 0..self.members {
                let index = self.index(cut, member);
                let moved =
                    |to: usize| (costs.enter_ms(member, to, cut) + self.after_ms[self.index(cut, to)], to);
                at[index] = match cut == end {
                    true => (costs.result_ms(member), NONE),
                    false => (0..self.members).map(moved).fold((f64::INFINITY, NONE), least),
                };
            }
        }
    }

    /// The stages that lead to a cut's tensors at a member.
    pub(super) fn stages_before(&self, costs: &Costs, mut cut: usize, mut member: usize) -> Vec<StageShape> {
        let mut stages = vec![];
        while cut > 0 {
            let (first, from) = self.came[self.index(cut, member)];
            stages.push(stage(costs, member, first, cut));
            (cut, member) = (first, from);
        }
        stages.reverse();
        stages
    }

    /// The stages from a cut on, the first of them on a member.
    pub(super) fn stages_after(&self, costs: &Costs, mut cut: usize, mut member: usize) -> Vec<StageShape> {
        let mut stages = vec![];
        while cut < self.cuts - 1 {
            let (end, next) = self.goes[self.index(cut, member)];
            stages.push(stage(costs, member, cut, end));
            (cut, member) = (end, next);
        }
        stages
    }
}

/// A run of a member.
pub(super) fn stage(costs: &Costs, member: usize, first: usize, end: usize) -> StageShape {
    StageShape { node: costs.node(member), first: first as u16, end: end as u16 }
}

fn least(one: (f64, usize), other: (f64, usize)) -> (f64, usize) {
    if other.0 < one.0 { other } else { one }
}
