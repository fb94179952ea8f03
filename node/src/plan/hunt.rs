//! The best plan for a goal. Relaxations first, which are quick and bound the answer; then the search over several
//! criteria, as far as it may go.

use super::best::{NoPlan, why_none};
use super::candidates::choose_with_next;
use super::costs::{Member, Stock};
use super::effort::{Weighed, Weights};
use super::front::{Amounts, Criterion, Ground, Sweep};
use super::goal::{Found, Goal, Method, Missed, Objective, ROUNDING, Search};
use super::losses::solve_within;
use super::nearby::quicker_with;
use super::price::{PlanShape, Priced};
use super::problem::Problem;
use super::ranges::Ranges;
use super::solve::Unsolved;
use super::streams::{self, Seats};
use super::wanted::Wanted;
use super::{CANDIDATES_MAX, CANDIDATES_RETRY_MAX};

/// Labels per state of a greedy sweep, and of those before the one without limit.
const LABELS_FEW: usize = 4;
const LABELS_SOME: usize = 32;
/// Passes of the search for the price of what is limited.
const PASSES_MAX: usize = 4;
/// Passes of the search for a period, and how near it has to come.
const NARROWING_PASSES: usize = 10;
const NARROW_ENOUGH: f64 = 1.005;
/// How often a search takes in nodes that were not chosen at first, how many at a time, and among how many of those that
/// promise most.
const FURTHER_ROUNDS_MAX: usize = 4;
const FURTHER_NODES_MAX: usize = 8;
const FURTHER_AMONG_MAX: usize = 128;
/// With no more states than this (cuts times nodes), a greedy search for a period sweeps after it was narrowed down.
const SMALL_STATES: usize = 256;

/// Runs and hops that an exact search tables.
const EXACT_STEPS_MAX: usize = 1_000_000_000;

/// Runs, of any blocks on nodes that are planned over, of a greedy search: each takes some 200 bytes (1,000 blocks on 64 nodes, of
/// which 32 are planned over, took 3.3 GB).
const GREEDY_RUNS_MAX: usize = 10_000_000;

/// The best plan for a goal, by one method.
pub(super) fn best_for(
    problem: &Problem,
    goal: &Goal,
    search: &Search,
    wanted: Wanted<'_>,
) -> Result<Found, Missed> {
    let Search { method, expansions_max } = *search;
    if !wanted.is_wanted() {
        return Err(Missed::NoPlan(NoPlan::Unwanted));
    }
    problem.check().map_err(|error| Missed::NoPlan(error.into()))?;
    let ranges = Ranges::new(problem);
    let stock = Stock::new(problem, &ranges).wanted(wanted);
    let computing = problem.nodes.iter().filter(|node| node.can_compute).count();
    let steps = tabled_steps(problem, computing);
    if method == Method::Exact && steps > EXACT_STEPS_MAX {
        return Err(Missed::NoPlan(NoPlan::TooLong { steps, most: EXACT_STEPS_MAX }));
    }
    let runs = tabled_runs(problem, computing.saturating_add(1).min(CANDIDATES_MAX));
    if method == Method::Greedy && runs > GREEDY_RUNS_MAX {
        return Err(Missed::NoPlan(NoPlan::TooManyRuns { steps: runs, most: GREEDY_RUNS_MAX }));
    }
    let counts: &[usize] = match method {
        Method::Greedy => &[CANDIDATES_MAX, CANDIDATES_RETRY_MAX],
        Method::Exact => &[usize::MAX],
    };
    let mut reason = Unsolved::NoWay;
    for count_max in counts {
        let (Seats { members, bound_ms }, next) = match goal.objective {
            Objective::Throughput => (streams::choose(problem, &ranges, *count_max), vec![]),
            _ => {
                let (members, next) = choose_with_next(&stock, *count_max, FURTHER_AMONG_MAX);
                (Seats { members, bound_ms: 0.0 }, next)
            }
        };
        let considered = members.iter().filter(|member| member.computes).count();
        let mut hunt =
            Hunt { problem, goal, stock: &stock, members, best: None, closest: None, bound: bound_ms };
        match hunt.run(method, expansions_max) {
            Ok(()) => {
                if goal.objective == Objective::Latency {
                    hunt.look_further(&next, method, expansions_max);
                }
                let considered = hunt.members.iter().filter(|member| member.computes).count();
                return hunt.found(computing - considered, method, expansions_max);
            }
            Err(none) => reason = none,
        }
        if considered == computing {
            break;
        }
    }
    Err(Missed::NoPlan(why_none(problem, &ranges, reason)))
}

/// Runs and hops over all nodes, each of which the tables of a search look at.
fn tabled_steps(problem: &Problem, computing: usize) -> usize {
    let members = computing.saturating_add(1);
    let codings: usize = problem.codings.iter().map(|codings| codings.len() + 1).sum();
    tabled_runs(problem, members).saturating_add(members.saturating_mul(members).saturating_mul(codings))
}

fn tabled_runs(problem: &Problem, nodes: usize) -> usize {
    let blocks = problem.block_count();
    nodes.saturating_mul(blocks.saturating_mul(blocks + 1) / 2)
}

/// A search under way.
struct Hunt<'a> {
    problem: &'a Problem,
    goal: &'a Goal,
    stock: &'a Stock<'a>,
    members: Vec<Member>,
    best: Option<Priced>,
    /// The plan that exceeds the limits least.
    closest: Option<Priced>,
    bound: f64,
}

impl Hunt<'_> {
    fn run(&mut self, method: Method, expansions_max: usize) -> Result<(), Unsolved> {
        let quickest = self.relaxed(expansions_max)?;
        if self.goal.objective == Objective::Latency {
            self.bound = quickest.1;
        }
        let (quickest, local) = (quickest.0, self.local(expansions_max));
        for shape in std::iter::once(quickest.clone()).chain(local.map(|local| local.0)) {
            self.consider(shape);
        }
        if self.goal.needs_energy() {
            self.weigh(&quickest, expansions_max);
        }
        if self.goal.objective == Objective::Throughput {
            self.pack();
        }
        if !self.is_proven() && !self.is_good_enough(method) {
            self.sweep(method, expansions_max);
        }
        Ok(())
    }

    /// Takes in nodes that the plan would be quicker with, and plans again, while that helps.
    fn look_further(&mut self, next: &[usize], method: Method, expansions_max: usize) {
        for _ in 0..FURTHER_ROUNDS_MAX {
            let Some(best) = self.best.clone().filter(|_| !next.is_empty()) else { return };
            let is_member = |node: &usize| self.members.iter().any(|member| member.node == *node);
            let others = next.iter().copied().filter(|node| !is_member(node));
            let plan = (&best.shape, best.latency_ms);
            let mut new = quicker_with(self.stock, plan, others);
            new.truncate(FURTHER_NODES_MAX);
            if new.is_empty() {
                return;
            }
            let count = self.members.len();
            self.members.extend(new.into_iter().map(|node| Member { node, computes: true }));
            if self.run(method, expansions_max).is_err() {
                self.members.truncate(count);
                return;
            }
            let is_better = self.best.as_ref().is_some_and(|now| now.latency_ms < best.latency_ms);
            if !is_better {
                return;
            }
        }
    }

    fn found(self, nodes_left_out: usize, method: Method, expansions_max: usize) -> Result<Found, Missed> {
        match (self.best, self.closest) {
            (Some(priced), _) => {
                let bound = self.bound.min(self.goal.value(&priced));
                Ok(Found { priced, bound, nodes_left_out })
            }
            (None, Some(closest)) => {
                let least = |objective: Objective| {
                    let goal = Goal { objective, latency_ms_max: None, energy_mj_max: None };
                    let search = Search { method, expansions_max };
                    best_for(self.problem, &goal, &search, self.stock.wanted).map_or(0.0, |found| found.bound)
                };
                let binding = self.goal.binding((least(Objective::Latency), least(Objective::Energy)));
                Err(Missed::Limits { binding, closest: Box::new(closest) })
            }
            (None, None) => Err(Missed::NoPlan(NoPlan::GaveUp)),
        }
    }

    fn is_proven(&self) -> bool {
        self.best.as_ref().is_some_and(|best| self.goal.value(best) <= self.bound * (1.0 + ROUNDING))
    }

    /// Takes a plan over if it is the best yet, or the closest.
    fn consider(&mut self, shape: PlanShape) -> Option<Priced> {
        let priced = self.problem.price(&shape).ok()?;
        if priced.loss > self.problem.loss_max + ROUNDING {
            return None;
        }
        let goal = self.goal;
        let is_less = |known: &Option<Priced>, by: &dyn Fn(&Priced) -> f64| {
            known.as_ref().is_none_or(|known| by(&priced) < by(known))
        };
        if goal.is_met(&priced) && is_less(&self.best, &|plan| goal.value(plan)) {
            self.best = Some(priced.clone());
        }
        if is_less(&self.closest, &|plan| goal.excess(plan)) {
            self.closest = Some(priced.clone());
        }
        Some(priced)
    }

    /// The quickest plan, and a bound of its latency.
    fn relaxed(&self, expansions_max: usize) -> Result<(PlanShape, f64), Unsolved> {
        let within = solve_within(self.stock, &self.members, expansions_max)?;
        Ok((within.priced.shape, within.bound_ms))
    }

    /// Likewise at the origin alone.
    fn local(&self, expansions_max: usize) -> Option<(PlanShape, f64)> {
        let solve = || solve_within(self.stock, &self.members[..1], expansions_max).ok();
        let within = self.members[0].computes.then(solve).flatten()?;
        Some((within.priced.shape, within.bound_ms))
    }

    /// The plan of least cost of a weighed problem over the first so many of its members, and a bound of that cost.
    fn weighed(
        &self,
        weighed: &Weighed,
        members: usize,
        expansions_max: usize,
    ) -> Result<(PlanShape, f64), Unsolved> {
        let stock = Stock::new(&weighed.problem, self.stock.ranges).wanted(self.stock.wanted);
        let within = solve_within(&stock, &weighed.members[..members], expansions_max)?;
        let mut shape = within.priced.shape;
        shape.stages.iter_mut().for_each(|stage| stage.node = self.members[stage.node].node);
        Ok((shape, within.bound_ms))
    }

    /// Searches for the price of energy (or of time, where energy is to be least) at which its limit is met.
    fn weigh(&mut self, quickest: &PlanShape, expansions_max: usize) {
        let in_energy = self.problem.weighed(&self.members, Weights::ENERGY);
        let tail_mj = self.problem.nodes[0].tail_mj;
        let all = self.members.len();
        let Ok((thriftiest, moving_mj)) = self.weighed(&in_energy, all, expansions_max) else { return };
        // What stays at the origin has no tail.
        let local = || self.weighed(&in_energy, 1, expansions_max).ok();
        let local = self.members[0].computes.then(local).flatten();
        let staying_mj = local.as_ref().map_or(f64::INFINITY, |local| local.1);
        if let Some((shape, _)) = local {
            self.consider(shape);
        }
        let (Some(quickest), Some(thriftiest)) =
            (self.problem.price(quickest).ok(), self.consider(thriftiest))
        else {
            return;
        };
        let by_energy = self.goal.objective == Objective::Energy;
        if by_energy {
            self.bound = staying_mj.min(moving_mj + tail_mj);
        }
        if self.is_proven() || matches!(self.goal.objective, Objective::Throughput | Objective::Loss) {
            return;
        }
        // Two corners of the hull over (latency, energy), between which the limit lies.
        let (mut left, mut right) = (quickest, thriftiest);
        for _ in 0..PASSES_MAX {
            let price = (right.latency_ms - left.latency_ms) / (left.energy_mj - right.energy_mj);
            if !price.is_finite() || price <= 0.0 {
                return;
            }
            let weighed = self.problem.weighed(&self.members, Weights { per_ms: 1.0, per_mj: price });
            let Ok((shape, cost)) = self.weighed(&weighed, all, expansions_max) else { return };
            self.tighten(cost, price);
            let Some(found) = self.consider(shape) else { return };
            let value = |plan: &Priced| plan.latency_ms + price * plan.energy_mj;
            if value(&found) >= value(&left) * (1.0 - ROUNDING) {
                return;
            }
            let fits = match by_energy {
                true => self.goal.latency_ms_max.is_some_and(|most| found.latency_ms > most),
                false => self.goal.energy_mj_max.is_some_and(|most| found.energy_mj <= most),
            };
            if fits { right = found } else { left = found }
        }
    }

    /// No plan within the limit has less than the relaxation says, since what it may use up is paid for.
    fn tighten(&mut self, cost: f64, price: f64) {
        let bound = match (self.goal.objective, self.goal.latency_ms_max, self.goal.energy_mj_max) {
            (Objective::Latency, _, Some(most_mj)) => cost - price * most_mj,
            (Objective::Energy, Some(most_ms), _) => (cost - most_ms) / price,
            _ => return,
        };
        self.bound = self.bound.max(bound);
    }

    /// Sweeps over all that counts, with ever more labels.
    fn sweep(&mut self, method: Method, expansions_max: usize) {
        let energy = || self.problem.weighed(&self.members, Weights::ENERGY);
        let energy = self.goal.needs_energy().then(energy);
        let with_period = self.goal.objective == Objective::Throughput;
        let ground = Ground::new(self.stock, energy.as_ref(), &self.members, with_period);
        if with_period {
            self.bound = self.bound.max(ground.least(Criterion::Period));
        }
        let here = Ground::new(self.stock, energy.as_ref(), &self.members[..1], with_period);
        let tail_mj = if self.goal.needs_energy() { self.problem.nodes[0].tail_mj } else { 0.0 };
        if with_period {
            self.narrow(&ground, expansions_max);
        }
        let labels: &[usize] = match method {
            Method::Greedy => &[LABELS_FEW],
            Method::Exact => &[LABELS_FEW, LABELS_SOME, usize::MAX],
        };
        let mut work_left = expansions_max;
        for labels_per_state in labels {
            if tail_mj > 0.0 {
                let (_, work) = self.sweep_over(&here, 0.0, *labels_per_state, work_left);
                work_left = work_left.saturating_sub(work);
            }
            let (is_exact, work) = self.sweep_over(&ground, tail_mj, *labels_per_state, work_left);
            work_left = work_left.saturating_sub(work);
            if is_exact && let Some(best) = &self.best {
                self.bound = self.goal.value(best);
            }
            if is_exact || self.is_proven() || work_left == 0 || !self.stock.wanted.is_wanted() {
                break;
            }
        }
    }

    /// Looks for short periods whatever else is limited.
    fn pack(&mut self) {
        let (problem, ranges, bound_ms) = (self.problem, self.stock.ranges, self.bound);
        let members = std::mem::take(&mut self.members);
        let price = |shape| self.consider(shape).map(|priced| priced.period_ms);
        let bound_ms = streams::search(problem, ranges, &members, bound_ms, price);
        (self.members, self.bound) = (members, bound_ms);
    }

    /// Whether a greedy search may end with what was packed: where nothing else is limited, and the problem is not so
    /// small that a sweep takes no time.
    fn is_good_enough(&self, method: Method) -> bool {
        let is_limited = self.goal.latency_ms_max.is_some()
            || self.goal.energy_mj_max.is_some()
            || self.problem.loss_price_min_ms() == 0.0;
        let states = self.problem.cut_bytes.len() * self.members.len();
        let is_stream = self.goal.objective == Objective::Throughput;
        is_stream && method == Method::Greedy && !is_limited && states > SMALL_STATES && self.best.is_some()
    }

    /// Searches for the shortest period at which plans are found, among those the quickest first: these leave
    /// most to the others.
    fn narrow(&mut self, ground: &Ground, expansions_max: usize) {
        let mut low = self.bound;
        let mut pass = 0;
        while pass < NARROWING_PASSES {
            let high = self.best.as_ref().map_or(f64::INFINITY, |best| self.goal.value(best));
            if high <= self.bound * NARROW_ENOUGH {
                return;
            }
            if high <= low * NARROW_ENOUGH {
                // What one label for each state missed, several may find.
                (low, pass) = (self.bound, pass.max(NARROWING_PASSES - 2));
            }
            // The bound is often met.
            let middle = match pass {
                0 => low,
                _ if high.is_finite() => (low * high).sqrt(),
                _ => low * 2.0,
            };
            let tail_mj = self.problem.nodes[0].tail_mj;
            let mut limits = self.limits(tail_mj);
            // Whatever is limited counts: a quicker partial plan that used up more may lead nowhere.
            let mut counts = limits.map(f64::is_finite);
            counts[Criterion::Latency as usize] = true;
            let middle = middle.max(low * NARROW_ENOUGH);
            limits[Criterion::Period as usize] = middle;
            let sweep = Sweep {
                ground,
                key: Criterion::Latency,
                counts,
                limits,
                below: f64::INFINITY,
                labels_per_state: if pass < NARROWING_PASSES - 2 { 1 } else { LABELS_FEW },
                work_max: expansions_max,
            };
            let outcome = sweep.run();
            if outcome.plans.is_empty() {
                low = middle;
                // A plan that moves nothing has no tail, and was held to the limit as if it had.
                let is_proof = outcome.is_exact && (tail_mj == 0.0 || self.goal.energy_mj_max.is_none());
                self.bound = if is_proof { self.bound.max(middle) } else { self.bound };
            }
            for shape in outcome.plans {
                self.consider(shape);
            }
            pass += 1;
        }
    }

    /// Most of everything that a plan may have which has this tail.
    fn limits(&self, tail_mj: f64) -> Amounts {
        let mut limits: Amounts = [f64::INFINITY; 4];
        limits[Criterion::Loss as usize] = self.problem.loss_max + ROUNDING;
        limits[Criterion::Latency as usize] = self.goal.latency_ms_max.unwrap_or(f64::INFINITY);
        if let Some(most_mj) = self.goal.energy_mj_max {
            limits[Criterion::Energy as usize] = most_mj - tail_mj;
        }
        limits
    }

    fn sweep_over(
        &mut self,
        ground: &Ground,
        tail_mj: f64,
        labels_per_state: usize,
        work_max: usize,
    ) -> (bool, usize) {
        let goal = self.goal;
        let key = goal.criterion();
        let limits = self.limits(tail_mj);
        let mut counts = limits.map(f64::is_finite);
        counts[key as usize] = true;
        let below = self.best.as_ref().map_or(f64::INFINITY, |best| {
            let value = goal.value(best);
            if key == Criterion::Energy { value - tail_mj } else { value }
        });
        let sweep = Sweep { ground, key, counts, limits, below, labels_per_state, work_max };
        let outcome = sweep.run();
        for shape in outcome.plans {
            self.consider(shape);
        }
        (outcome.is_exact, outcome.work)
    }
}
