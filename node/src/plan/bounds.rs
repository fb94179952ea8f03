//! The backward dynamic programme: from every (cut, member) the least time to the result, with
//! each run's memory looked at alone. Exact for that question, a lower bound for the one where a
//! node's runs share its memory or all stages must be on distinct nodes.

use std::ops::Range;

use super::costs::Costs;
use super::price::StageShape;

/// What a member did last before the tensors of a cut came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// Ran a range that had to be loaded. It will not load the next one too: that would have been
    /// one range.
    Cold,
    /// Ran a loaded range, or nothing yet.
    Other,
}

/// From who has a cut's tensors, and what it did last, to who runs next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) holder: usize,
    pub(super) last: Last,
    pub(super) member: usize,
}

/// Least times to the result.
pub(super) struct Bounds {
    cuts: usize,
    members: usize,
    /// Zero if any number of stages will do; else tables exist for 0 to this many.
    stages_max: usize,
    /// `[stages left][member][cut]`: the cut's tensors are at the member.
    at_ms: Vec<f64>,
    /// Likewise, after a cold run there.
    after_cold_ms: Vec<f64>,
    /// `[stages left][cut][member]`: the member is about to run a stage from the cut on.
    start_ms: Vec<f64>,
}

impl Bounds {
    /// Over plans of any number of stages.
    pub(super) fn over_all(costs: &Costs) -> Self {
        Self::build(costs, 0)
    }

    /// Over chains of exactly 1 to `stages_max` stages, neighbours on different nodes.
    pub(super) fn over_chains(costs: &Costs, stages_max: usize) -> Self {
        Self::build(costs, stages_max)
    }

    fn build(costs: &Costs, stages_max: usize) -> Self {
        let (cuts, members) = (costs.block_count() + 1, costs.member_count());
        let size = (stages_max + 1) * cuts * members;
        let none = || vec![f64::INFINITY; size];
        let mut bounds =
            Self { cuts, members, stages_max, at_ms: none(), after_cold_ms: none(), start_ms: none() };
        for member in 0..members {
            let home = bounds.at_index(0, cuts - 1, member);
            bounds.at_ms[home] = costs.result_ms(member);
            bounds.after_cold_ms[home] = costs.result_ms(member);
        }
        let is_counted = stages_max > 0;
        for cut in (0..cuts - 1).rev() {
            for left in usize::from(is_counted)..=stages_max {
                bounds.fill(costs, left, cut);
            }
        }
        bounds
    }

    fn fill(&mut self, costs: &Costs, left: usize, cut: usize) {
        let left_after = self.left_after(left);
        for member in 0..self.members {
            let after = self.at_row(left_after, member);
            let start =
                costs.best_run_ms(member, cut, &self.after_cold_ms[after.clone()], &self.at_ms[after]);
            let index = self.start_index(left, cut, member);
            self.start_ms[index] = start;
        }
        // The input is nowhere but at the origin.
        let holders = if cut == 0 { 1 } else { self.members };
        let row = self.start_index(left, cut, 0);
        let mut moved_ms = vec![0.0; holders];
        costs.best_moves_ms(cut, &self.start_ms[row..row + self.members], &mut moved_ms);
        for (member, moved_ms) in moved_ms.into_iter().enumerate() {
            let index = self.at_index(left, cut, member);
            self.at_ms[index] = moved_ms.min(self.stay_ms(costs, left, cut, member, Last::Other));
            self.after_cold_ms[index] = moved_ms.min(self.stay_ms(costs, left, cut, member, Last::Cold));
        }
    }

    /// Least time to the result if the member that has the cut's tensors also runs next.
    fn stay_ms(&self, costs: &Costs, left: usize, cut: usize, member: usize, last: Last) -> f64 {
        if self.stages_max > 0 && cut > 0 {
            f64::INFINITY
        } else if last == Last::Cold && costs.may_merge(member, cut) {
            costs.best_loaded_run_ms(member, cut, &self.at_ms[self.at_row(self.left_after(left), member)])
        } else {
            self.start_ms(left, cut, member)
        }
    }

    fn at_row(&self, left: usize, member: usize) -> Range<usize> {
        let start = self.at_index(left, 0, member);
        start..start + self.cuts
    }

    fn at_index(&self, left: usize, cut: usize, member: usize) -> usize {
        (left * self.members + member) * self.cuts + cut
    }

    fn start_index(&self, left: usize, cut: usize, member: usize) -> usize {
        (left * self.cuts + cut) * self.members + member
    }

    fn left_after(&self, left: usize) -> usize {
        left.saturating_sub(1)
    }

    /// Least time to the result once the cut's tensors are at the member, with `left` stages to
    /// come (zero where stages are not counted).
    pub(super) fn at_ms(&self, left: usize, cut: usize, member: usize, last: Last) -> f64 {
        let table = if last == Last::Cold { &self.after_cold_ms } else { &self.at_ms };
        table[self.at_index(left, cut, member)]
    }

    /// Least time to the result once the member is about to run from the cut on.
    pub(super) fn start_ms(&self, left: usize, cut: usize, member: usize) -> f64 {
        self.start_ms[self.start_index(left, cut, member)]
    }

    /// Least time to the result once the holder of the cut's tensors sends them to a member.
    pub(super) fn enter_ms(&self, costs: &Costs, left: usize, cut: usize, way: Way) -> f64 {
        let Way { holder, last, member } = way;
        let rest_ms = if member == holder {
            self.stay_ms(costs, left, cut, member, last)
        } else {
            self.start_ms(left, cut, member)
        };
        costs.enter_ms(holder, member, cut) + rest_ms
    }

    /// Least time from input to result; infinite if there is no way.
    pub(super) fn total_ms(&self, stages: usize) -> f64 {
        self.at_ms(stages, 0, 0, Last::Other)
    }

    /// The stages, as many as may be, that take this least time. Among equals it stays where it
    /// is, and runs as much in one go as it can.
    pub(super) fn follow(&self, costs: &Costs) -> Option<Vec<StageShape>> {
        let (mut cut, mut holder, mut last) = (0, 0, Last::Other);
        let mut stages = vec![];
        while cut < self.cuts - 1 {
            let others = (0..self.members).filter(|member| *member != holder);
            let member = least(std::iter::once(holder).chain(others), |member| {
                self.enter_ms(costs, 0, cut, Way { holder, last, member })
            })?;
            let is_loaded_only = member == holder && last == Last::Cold && costs.may_merge(member, cut);
            let end = least((cut + 1..self.cuts).rev(), |end| match costs.last_after(member, cut, end) {
                Last::Cold if is_loaded_only => f64::INFINITY,
                last => costs.run_ms(member, cut, end) + self.at_ms(0, end, member, last),
            })?;
            stages.push(StageShape { node: costs.node(member), first: cut as u16, end: end as u16 });
            last = costs.last_after(member, cut, end);
            (cut, holder) = (end, member);
        }
        Some(stages)
    }
}

/// The first choice with the least cost; none if all are infinite.
fn least(choices: impl Iterator<Item = usize>, cost: impl Fn(usize) -> f64) -> Option<usize> {
    let mut best = (f64::INFINITY, None);
    for choice in choices {
        let cost = cost(choice);
        if cost < best.0 {
            best = (cost, Some(choice));
        }
    }
    best.1
}
