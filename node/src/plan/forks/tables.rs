//! The least time from the input to each (cut, member), and from there to the result, with the stages between: each
//! run's memory looked at alone.

use super::candidates::Candidate;
use crate::plan::costs::Costs;
use crate::plan::price::StageShape;

/// Both ways through a problem over some members.
pub(super) struct Tables {
    cuts: usize,
    members: usize,
    /// `[cut][member]`: the cut's tensors came to be at the member, by a run or from the beginning.
    pub(super) before_ms: Vec<f64>,
    /// `[cut][member]`: the member is about to run from the cut on; behind whatever leads there, and before the rest.
    begun_ms: Vec<f64>,
    pub(super) after_ms: Vec<f64>,
    /// `[cut][member]`: the cut's tensors are at the member, which is not the one to run next.
    moved_ms: Vec<f64>,
}

impl Tables {
    pub(super) fn new(costs: &Costs) -> Self {
        let (cuts, members) = (costs.block_count() + 1, costs.member_count());
        let none = || vec![f64::INFINITY; cuts * members];
        let [before_ms, begun_ms, after_ms, moved_ms] = [none(), none(), none(), none()];
        let mut tables = Self { cuts, members, before_ms, begun_ms, after_ms, moved_ms };
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
        // By member and cut, for the loops over cuts.
        let mut done_ms = vec![f64::INFINITY; self.members * self.cuts];
        for cut in 0..self.cuts - 1 {
            let row = cut * self.members..(cut + 1) * self.members;
            for (member, before_ms) in self.before_ms[row.clone()].iter_mut().enumerate() {
                *before_ms = before_ms.min(done_ms[member * self.cuts + cut]);
            }
            costs.best_arrivals_ms(cut, &self.before_ms[row.clone()], &mut self.begun_ms[row.clone()]);
            for (member, begun_ms) in self.begun_ms[row].iter().enumerate() {
                if begun_ms.is_finite() {
                    costs.run_on(member, cut, *begun_ms, &mut done_ms[member * self.cuts..][..self.cuts]);
                }
            }
        }
        let end = self.index(self.cuts - 1, 0);
        for (member, before_ms) in self.before_ms[end..].iter_mut().enumerate() {
            *before_ms = done_ms[(member + 1) * self.cuts - 1];
        }
    }

    fn fill_after(&mut self, costs: &Costs) {
        let end = self.cuts - 1;
        // By member and cut.
        let mut at_ms = vec![f64::INFINITY; self.members * self.cuts];
        for member in 0..self.members {
            at_ms[(member + 1) * self.cuts - 1] = costs.result_ms(member);
        }
        for cut in (0..end).rev() {
            let row = cut * self.members..(cut + 1) * self.members;
            for member in (0..self.members).filter(|member| costs.may_start(*member, cut)) {
                let at_ms = &at_ms[member * self.cuts..][..self.cuts];
                self.after_ms[row.start + member] = costs.best_run_ms(member, cut, at_ms, at_ms);
            }
            costs.best_moves_ms(cut, &self.after_ms[row.clone()], &mut self.moved_ms[row.clone()]);
            let both = self.after_ms[row.clone()].iter().zip(&self.moved_ms[row]);
            for (member, (after_ms, moved_ms)) in both.enumerate() {
                at_ms[member * self.cuts + cut] = after_ms.min(*moved_ms);
            }
        }
    }

    /// The least from where a cut's tensors are on.
    fn at_ms(&self, costs: &Costs, cut: usize, member: usize) -> f64 {
        let index = self.index(cut, member);
        if cut + 1 == self.cuts {
            costs.result_ms(member)
        } else {
            self.after_ms[index].min(self.moved_ms[index])
        }
    }

    /// The stages that lead to a cut's tensors at a member.
    pub(super) fn stages_before(&self, costs: &Costs, mut cut: usize, mut member: usize) -> Vec<StageShape> {
        let mut stages = vec![];
        while cut > 0 {
            let run_ms =
                |first: usize| self.begun_ms[self.index(first, member)] + costs.run_ms(member, first, cut);
            let first = least(0..cut, run_ms);
            let sent_ms =
                |from: usize| self.before_ms[self.index(first, from)] + costs.enter_ms(from, member, first);
            stages.push(stage(costs, member, first, cut));
            (cut, member) = (first, least(0..self.members, sent_ms));
        }
        stages.reverse();
        stages
    }

    /// The stages from a cut on, the first of them on a member.
    pub(super) fn stages_after(&self, costs: &Costs, mut cut: usize, mut member: usize) -> Vec<StageShape> {
        let mut stages = vec![];
        while cut < self.cuts - 1 {
            let run_ms = |end: usize| costs.run_ms(member, cut, end) + self.at_ms(costs, end, member);
            let end = least(cut + 1..self.cuts, run_ms);
            stages.push(stage(costs, member, cut, end));
            if end < self.cuts - 1 {
                let sent_ms =
                    |to: usize| costs.enter_ms(member, to, end) + self.after_ms[self.index(end, to)];
                member = least(0..self.members, sent_ms);
            }
            cut = end;
        }
        stages
    }
}

/// A run of a member.
pub(super) fn stage(costs: &Costs, member: usize, first: usize, end: usize) -> StageShape {
    StageShape { node: costs.node(member), first: first as u16, end: end as u16 }
}

/// The first choice that costs least.
fn least(choices: std::ops::Range<usize>, cost: impl Fn(usize) -> f64) -> usize {
    let mut best = (f64::INFINITY, choices.start);
    for choice in choices {
        let cost = cost(choice);
        if cost < best.0 {
            best = (cost, choice);
        }
    }
    best.1
}
