//! The best plan that forks. Cut by cut, each fork that may begin there is tried between pairs of nodes, behind the least
//! way that leads there, which may have forks itself, and before the least way without any; how the parts between are
//! handed out is said elsewhere. What is left out cannot be better, by what each fork takes at least, or was the least
//! promising.

use super::candidates::{Candidate, candidates};
use super::tables::{Tables, stage};
use super::{ForkedShape, Forks, Part, PricedForked};
use crate::plan::candidates::choose;
use crate::plan::costs::{Costs, Stock};
use crate::plan::goal::{Method, ROUNDING};
use crate::plan::price::Infeasible;
use crate::plan::problem::Problem;
use crate::plan::ranges::Ranges;

/// Members that parts are handed to, the most promising: pairs of them are tried as fork and join. Fewer where there
/// are strips or a batch, whose lanes between all pairs take longer.
const MEMBERS_MAX: usize = 24;
const MEMBERS_OF_SHARES_MAX: usize = 16;

/// How to look for a plan that forks.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// [`Method::Greedy`]: over the most promising nodes, with heuristics; [`Method::Exact`]: over all, and all ways that
    /// may matter.
    pub method: Method,
    /// Partial ways to hand parts out that [`Method::Exact`] looks at.
    pub expansions_max: usize,
    /// Only plans that take less are of interest.
    pub below_ms: f64,
}

/// The best plan found with a fork or more.
#[derive(Debug, Clone, PartialEq)]
pub struct Forked {
    /// The plan.
    pub priced: PricedForked,
    /// No plan with a fork takes less, over the nodes and stretches looked at.
    pub bound_ms: f64,
}

/// How many forks a plan may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) enum Count {
    One,
    Several,
}

/// The members that fork and join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) fork: usize,
    pub(super) join: usize,
}

/// Who is told of ways to hand the parts of a fork out.
pub(super) trait Keep {
    /// What takes as long from the fork's input to the join's is of no interest.
    fn below_ms(&self) -> f64;
    /// What such a way takes, and what it is.
    fn take(&mut self, fork_ms: f64, part: Part);
}

/// The plan with at least one fork that takes least, if there is any below what is asked for.
pub fn best_forked(problem: &Problem, forks: &Forks, scope: &Scope) -> Option<Forked> {
    best_of(problem, forks, scope, Count::Several)
}

/// Likewise, with so many forks.
pub(in crate::plan) fn best_of(
    problem: &Problem,
    forks: &Forks,
    scope: &Scope,
    count: Count,
) -> Option<Forked> {
    if forks.is_empty() {
        return None;
    }
    let is_exact = scope.method == Method::Exact;
    let ranges = Ranges::new(problem);
    let stock = Stock::new(problem, &ranges);
    let has_shares = !forks.strips.is_empty() || forks.items > 1;
    let members_max = if has_shares { MEMBERS_OF_SHARES_MAX } else { MEMBERS_MAX };
    let members = choose(&stock, if is_exact { usize::MAX } else { members_max });
    let costs = Costs::new(&stock, members, f64::INFINITY);
    let tables = Tables::new(&costs);
    let candidates = candidates(problem, forks, &costs, &tables, is_exact);
    let follow = |one: &Candidate| candidates.iter().any(|other| other.first > one.end);
    let count = if candidates.iter().any(follow) { count } else { Count::One };
    let mut search = Search {
        problem,
        forks,
        costs: &costs,
        tables: &tables,
        rest_ms: match count {
            Count::One => tables.after_ms.clone(),
            Count::Several => tables.with_forks(&costs, &candidates),
        },
        behind: Behind::new(&costs),
        best: Best { priced: None, below_ms: scope.below_ms, is_coupled: false },
        work_left: is_exact.then_some(scope.expansions_max),
    };
    let bound_ms = search.bound_ms(&candidates);
    search.run(&candidates, count);
    let Search { best, work_left, .. } = search;
    let priced = best.priced?;
    let is_whole = work_left.is_some_and(|left| left > 0) && !best.is_coupled;
    let bound_ms = if is_whole { priced.latency_ms } else { bound_ms.min(priced.latency_ms) };
    Some(Forked { priced, bound_ms })
}

struct Search<'a> {
    problem: &'a Problem,
    forks: &'a Forks,
    costs: &'a Costs<'a>,
    tables: &'a Tables,
    /// `[cut][member]`: no way from there on takes less, whether it forks or not.
    rest_ms: Vec<f64>,
    behind: Behind,
    best: Best,
    work_left: Option<usize>,
}

struct Best {
    priced: Option<PricedForked>,
    below_ms: f64,
    /// Whether a way was refused for its memory: another one to the same place might fit.
    is_coupled: bool,
}

/// The least ways found so far that have forks.
struct Behind {
    members: usize,
    /// `[cut][member]`: about to run there.
    start_ms: Vec<f64>,
    start_by: Vec<Option<Start>>,
    /// `[cut][member]`: what came there by a run, and where that began.
    done_ms: Vec<f64>,
    done_first: Vec<usize>,
}

/// How a member came to run from a cut on.
#[derive(Clone)]
enum Start {
    /// This one had the cut's tensors.
    From(usize),
    /// A fork was joined there that began at this cut and member.
    Joined { cut: usize, fork: usize, way: Way, part: Part },
}

/// Whether the least way to a fork has forks itself.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    Forked,
}

impl Behind {
    fn new(costs: &Costs) -> Self {
        let (cuts, members) = (costs.block_count() + 1, costs.member_count());
        let none = || vec![f64::INFINITY; cuts * members];
        Self {
            members,
            start_ms: none(),
            start_by: vec![None; cuts * members],
            done_ms: none(),
            done_first: vec![0; cuts * members],
        }
    }

    /// Goes on from a cut by a run.
    fn go_on(&mut self, costs: &Costs, cut: usize) {
        let at = cut * self.members;
        let is_reached = |times_ms: &[f64]| times_ms[at..at + self.members].iter().any(|ms| ms.is_finite());
        if !is_reached(&self.start_ms) && !is_reached(&self.done_ms) {
            return;
        }
        for member in 0..self.members {
            for from in 0..self.members {
                let start_ms = self.done_ms[at + from] + costs.enter_ms(from, member, cut);
                if start_ms < self.start_ms[at + member] {
                    self.start_ms[at + member] = start_ms;
                    self.start_by[at + member] = Some(Start::From(from));
                }
            }
            let start_ms = self.start_ms[at + member];
            for end in (cut + 1..=costs.block_count()).filter(|_| start_ms.is_finite()) {
                let done_ms = start_ms + costs.run_ms(member, cut, end);
                let index = end * self.members + member;
                if done_ms < self.done_ms[index] {
                    (self.done_ms[index], self.done_first[index]) = (done_ms, cut);
                }
            }
        }
    }

    /// The parts that lead to a cut's tensors at a member.
    fn parts(
        &self,
        costs: &Costs,
        tables: &Tables,
        (mut cut, mut member, mut way): (usize, usize, Way),
    ) -> Vec<Part> {
        let mut parts = vec![];
        while let Way::Forked = way {
            let first = self.done_first[cut * self.members + member];
            parts.push(Part::Stage(stage(costs, member, first, cut)));
            match &self.start_by[first * self.members + member] {
                Some(Start::From(from)) => (cut, member) = (first, *from),
                Some(Start::Joined { cut: fork_cut, fork, way: before, part }) => {
                    parts.push(part.clone());
                    (cut, member, way) = (*fork_cut, *fork, *before);
                }
                // There is a way to every start.
                None => break,
            }
        }
        parts.extend(tables.stages_before(costs, cut, member).into_iter().rev().map(Part::Stage));
        parts.reverse();
        parts
    }
}

impl Search<'_> {
    /// No plan with a fork takes less.
    fn bound_ms(&self, candidates: &[Candidate]) -> f64 {
        let blocks = self.costs.block_count();
        let of_candidate = |candidate: &Candidate| {
            let least_ms = |ends: Ends| {
                let before_ms = self.tables.before_ms[self.tables.index(candidate.first, ends.fork)];
                before_ms + candidate.least_ms(ends) + self.rest_ms(candidate, ends)
            };
            candidate.all_ends(blocks).map(least_ms).fold(f64::INFINITY, f64::min)
        };
        candidates.iter().map(of_candidate).fold(f64::INFINITY, f64::min)
    }

    fn rest_ms(&self, candidate: &Candidate, ends: Ends) -> f64 {
        match candidate.end == self.costs.block_count() {
            true => 0.0,
            false => self.rest_ms[self.tables.index(candidate.end, ends.join)],
        }
    }

    fn run(&mut self, candidates: &[Candidate], count: Count) {
        for cut in 0..self.costs.block_count() {
            if count == Count::Several {
                self.behind.go_on(self.costs, cut);
            }
            for candidate in candidates.iter().filter(|candidate| candidate.first == cut) {
                for ends in &candidate.pairs {
                    self.fork(candidate, *ends);
                }
            }
        }
    }

    /// Tries a fork between two members, behind the least way that leads there.
    fn fork(&mut self, candidate: &Candidate, ends: Ends) {
        let (from, to) =
            (self.tables.index(candidate.first, ends.fork), self.tables.index(candidate.end, ends.join));
        let (plain_ms, forked_ms) = (self.tables.before_ms[from], self.behind.done_ms[from]);
        let (before_ms, way) =
            if forked_ms < plain_ms { (forked_ms, Way::Forked) } else { (plain_ms, Way::Plain) };
        let rest_ms = self.rest_ms(candidate, ends);
        // Not by a comparison alone: what cannot be is infinite.
        let least_ms = before_ms + candidate.least_ms(ends) + rest_ms;
        if !least_ms.is_finite() || least_ms >= self.best.below_ms {
            return;
        }
        let is_last = candidate.end == self.costs.block_count();
        let mut tried = Tried {
            problem: self.problem,
            forks: self.forks,
            costs: self.costs,
            tables: self.tables,
            behind: &self.behind,
            at: (candidate.first, ends.fork, way),
            outside_ms: before_ms + rest_ms,
            after_ms: if is_last { 0.0 } else { self.tables.after_ms[to] },
            before_ms,
            to: (candidate.end, ends.join),
            least: None,
            best: &mut self.best,
        };
        candidate.arrange(ends, self.work_left.as_mut(), &mut tried);
        let Some((fork_ms, part)) = tried.least.filter(|_| !is_last) else { return };
        if before_ms + fork_ms < self.behind.start_ms[to] {
            self.behind.start_ms[to] = before_ms + fork_ms;
            let joined = Start::Joined { cut: candidate.first, fork: ends.fork, way, part };
            self.behind.start_by[to] = Some(joined);
        }
    }
}

/// A fork between two members, and the ways to hand its parts out that were told of.
struct Tried<'a> {
    problem: &'a Problem,
    forks: &'a Forks,
    costs: &'a Costs<'a>,
    tables: &'a Tables,
    behind: &'a Behind,
    at: (usize, usize, Way),
    to: (usize, usize),
    before_ms: f64,
    /// From the join on, without another fork.
    after_ms: f64,
    /// The least of all but the fork.
    outside_ms: f64,
    least: Option<(f64, Part)>,
    best: &'a mut Best,
}

impl Keep for Tried<'_> {
    fn below_ms(&self) -> f64 {
        self.best.below_ms - self.outside_ms
    }

    fn take(&mut self, fork_ms: f64, part: Part) {
        if self.least.as_ref().is_none_or(|(least_ms, _)| fork_ms < *least_ms) {
            self.least = Some((fork_ms, part.clone()));
        }
        if self.before_ms + fork_ms + self.after_ms >= self.best.below_ms {
            return;
        }
        let mut parts = self.behind.parts(self.costs, self.tables, self.at);
        parts.push(part);
        let (end, join) = self.to;
        parts.extend(self.tables.stages_after(self.costs, end, join).into_iter().map(Part::Stage));
        let priced = self.problem.price_forked(self.forks, &ForkedShape { parts });
        self.best.is_coupled |= matches!(priced, Err(Infeasible::Memory { .. }));
        if let Ok(priced) = priced
            && priced.latency_ms < self.best.below_ms * (1.0 - ROUNDING)
        {
            self.best.below_ms = priced.latency_ms;
            self.best.priced = Some(priced);
        }
    }
}
